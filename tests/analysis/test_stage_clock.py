from types import SimpleNamespace

import pytest

from pixelclip.analysis import stage_clock
from pixelclip.analysis.stage_clock import Stage, StageClock


class Kitchen:
    """Every dish takes its time on a clock of ours."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(stage_clock, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def boil(self, seconds):
        self.now += seconds
        return seconds

    def cook(self):
        self.now += 1
        self.boil(5)
        self.now += 2
        return "meal"

    def burn(self):
        self.now += 4
        raise RuntimeError("smoke")


@pytest.fixture
def kitchen(monkeypatch):
    return Kitchen(monkeypatch)


def test_nested_stages_count_their_own_time(kitchen):
    clock = StageClock(lambda: None)
    stages = [Stage(kitchen, "cook", "cooking"), Stage(kitchen, "boil", "boiling")]
    with clock.watch(stages):
        kitchen.now += 100
        assert kitchen.cook() == "meal"
        kitchen.boil(seconds=7)
    kitchen.boil(50)
    assert clock.seconds == {"cooking": 3, "boiling": 12}


def test_the_functions_are_as_before_afterwards(kitchen):
    clock = StageClock(lambda: None)
    with (
        pytest.raises(RuntimeError, match="smoke"),
        clock.watch([Stage(kitchen, "burn", "burning")]),
    ):
        kitchen.burn()
    assert clock.seconds == {"burning": 4}
    assert "burn" not in vars(kitchen)


def test_methods_of_classes_and_modules_can_be_watched(kitchen):
    clock = StageClock(lambda: None)
    with clock.watch([Stage(Kitchen, "boil", "boiling")]):
        kitchen.cook()
    assert clock.seconds == {"boiling": 5}
    assert kitchen.boil(1) == 1 and clock.seconds == {"boiling": 5}


def test_the_device_is_waited_for(kitchen):
    def finish_work():
        kitchen.now += 10

    clock = StageClock(finish_work)
    with clock.watch([Stage(kitchen, "boil", "boiling")]):
        kitchen.boil(1)
    assert clock.seconds == {"boiling": 11}


def test_a_stage_that_does_not_exist_is_an_error(kitchen):
    with (
        pytest.raises(AttributeError, match="fry"),
        StageClock(print).watch([Stage(kitchen, "fry", "frying")]),
    ):
        pass
