import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from pixelclip.analysis import profiling
from pixelclip.analysis.profiling import (
    StageClock,
    count_operations,
    find_synchronizations,
    measure_peak,
    read_peak_memory,
    reset_peak_memory,
)
from pixelclip.modeling.clip_loader import load_clip
from pixelclip.modeling.image_encoder import DenseImageEncoder

CPU = torch.device("cpu")
MIB = 2**20


class Kitchen:
    """Every dish takes its time on a clock of ours."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(profiling, "time", SimpleNamespace(perf_counter=lambda: self.now))

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
    clock = StageClock(CPU)
    stages = [(kitchen, "cook", "cooking"), (kitchen, "boil", "boiling")]
    with clock.watch(stages):
        kitchen.now += 100
        assert kitchen.cook() == "meal"
        kitchen.boil(seconds=7)
    kitchen.boil(50)
    assert clock.seconds == {"cooking": 3, "boiling": 12}


def test_the_functions_are_as_before_afterwards(kitchen):
    clock = StageClock(CPU)
    with (
        pytest.raises(RuntimeError, match="smoke"),
        clock.watch([(kitchen, "burn", "burning")]),
    ):
        kitchen.burn()
    assert clock.seconds == {"burning": 4}
    assert "burn" not in vars(kitchen)


def test_methods_of_classes_and_modules_can_be_watched(kitchen):
    clock = StageClock(CPU)
    with clock.watch([(Kitchen, "boil", "boiling")]):
        kitchen.cook()
    assert clock.seconds == {"boiling": 5}
    assert kitchen.boil(1) == 1 and clock.seconds == {"boiling": 5}


def test_the_device_is_waited_for(kitchen, monkeypatch):
    def finish_work(device):
        kitchen.now += 10

    monkeypatch.setattr(profiling, "synchronize", finish_work)
    clock = StageClock(CPU)
    with clock.watch([(kitchen, "boil", "boiling")]):
        kitchen.boil(1)
    assert clock.seconds == {"boiling": 11}


def test_a_stage_that_does_not_exist_is_an_error(kitchen):
    with (
        pytest.raises(AttributeError, match="fry"),
        StageClock(CPU).watch([(kitchen, "fry", "frying")]),
    ):
        pass


def test_a_product_and_its_gradients_are_counted():
    left, right = torch.randn(5, 7, requires_grad=True), torch.randn(7, 11, requires_grad=True)
    assert count_operations(lambda: left @ right) == 2 * 5 * 7 * 11
    assert count_operations(lambda: (left @ right).sum().backward()) == 3 * 2 * 5 * 7 * 11


def test_attention_is_counted_forward_and_backward():
    q, k, v = (torch.randn(1, 2, 8, 4, requires_grad=True) for _ in range(3))
    products = 2 * (2 * 8 * 8 * 4)  # two of them, of two heads
    forward = count_operations(lambda: F.scaled_dot_product_attention(q, k, v))
    assert forward == 2 * products
    both = count_operations(lambda: F.scaled_dot_product_attention(q, k, v).sum().backward())
    assert both >= 3 * forward


@pytest.mark.parametrize("grad", [True, False])
def test_an_encoder_is_counted_as_by_hand(tiny_vit_json, grad):
    encoder = DenseImageEncoder(load_clip(tiny_vit_json, "").visual).eval()
    tokens, width, layers, out = 17, 32, 3, 24
    whole = 4 * width * width * tokens + 2 * tokens * tokens * width + 8 * width * width * tokens
    last = 2 * width * width * tokens + 8 * width * width * tokens  # only values and output
    expected = 2 * (3 * 16 * 16 * width * 16 + (layers - 1) * whole + last + 16 * width * out)
    with torch.set_grad_enabled(grad):
        counted = count_operations(lambda: encoder(torch.randn(1, 3, 64, 64)))
    assert counted == pytest.approx(expected, rel=0.1)


def test_the_fast_path_is_as_before_afterwards():
    with pytest.raises(ZeroDivisionError):
        count_operations(lambda: 1 / 0)
    assert torch.backends.mha.get_fastpath_enabled()


def test_synchronizations_are_counted_by_place(monkeypatch):
    modes = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: modes.append("synchronize"))
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def step():
        assert modes[-1] == "warn"
        for _ in range(2):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)

    places = find_synchronizations(torch.device("cuda"), step)
    assert list(places.values()) == [2] and next(iter(places)).startswith("test_profiling.py:")
    with pytest.raises(ZeroDivisionError):
        find_synchronizations(torch.device("cuda"), lambda: 1 / 0)
    assert modes == ["synchronize", "warn", "default"] * 2
    assert not find_synchronizations(CPU, lambda: 1 / 0)


def test_the_peak_is_a_rate(monkeypatch):
    monkeypatch.setitem(profiling._SIDE, "cpu", 64)
    assert 1e5 < measure_peak(CPU, "float32") < 1e14


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_only_what_came_after_the_reset_counts():
    # Large, compared with what a system takes back from a process or garbage collection frees.
    torch.ones(600 * MIB // 4)
    reset_peak_memory(CPU)
    before = read_peak_memory(CPU)
    torch.ones(300 * MIB // 4)
    grown = read_peak_memory(CPU) - before
    assert 150 * MIB < grown < 450 * MIB


def test_without_proc_it_is_the_peak_of_the_process(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda _: (_ for _ in ()).throw(OSError()))
    monkeypatch.setattr(Path, "write_text", lambda *_: (_ for _ in ()).throw(OSError()))
    reset_peak_memory(CPU)
    assert read_peak_memory(CPU) > 50 * MIB
