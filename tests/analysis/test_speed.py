import json

import pytest
import torch

from pixelclip.analysis import profiling, speed
from pixelclip.analysis.speed import Configuration, analyze_speed, format_result

from ..conftest import write_images

CONFIG = "configs/pixelclip_vitb16.yaml"


@pytest.fixture
def tiny(tiny_vit_json, tmp_path, monkeypatch):
    """A tiny configuration and a folder of images."""
    monkeypatch.setitem(profiling._SIDE, "cpu", 64)
    write_images(tmp_path / "images", count=3)
    overrides = (
        *("MODEL.CLIP.ARCH", tiny_vit_json, "MODEL.CLIP.RESOLUTION", "(64, 64)"),
        *("MODEL.PIXELCLIP.MASK_RESOLUTION", "(32, 32)", "MODEL.PIXELCLIP.NUM_CLUSTERS", "8"),
        *("MODEL.PIXELCLIP.TEST_TEMPLATES", "imagenet_select", "SOLVER.IMS_PER_BATCH", "2"),
        *("INPUT.MIN_SIZE_TRAIN", "(60,)", "INPUT.CROP.SIZE", "(48, 48)"),
        *("INPUT.MIN_SIZE_TEST", "64", "MODEL.DEVICE", "cpu"),
    )
    return Configuration(CONFIG, overrides), str(tmp_path / "images")


@pytest.mark.parametrize(
    ("command", "per_step", "stages", "computes"),
    [
        ("data", 1, {"decoding the JPEG", "masks", "strong augmentation"}, False),
        ("train", 2, {"student, forward", "backward", "optimizer", "text encoder"}, True),
        ("eval", 1, {"image encoder", "upsampling and labels"}, True),
    ],
)
def test_every_command_measures_what_it_says(tiny, command, per_step, stages, computes, tmp_path):
    configuration, images = tiny
    result = analyze_speed(command, [configuration], 1, 2, images)
    (measured,) = result["configurations"]
    assert len(measured["seconds"]) == 2
    assert measured["images_per_step"] == per_step
    assert measured["images_per_second"] == pytest.approx(per_step / measured["median_seconds"])
    assert stages <= set(measured["stages"])
    assert all(share > 0 for name, share in measured["stages"].items() if name in stages)
    assert sum(measured["stages"].values()) == pytest.approx(1)
    assert -0.01 < measured["stages"]["the rest"] < 0.9
    assert (measured["operations_per_step"] > 0) == computes
    assert measured["peak_memory_bytes"] > 50e6
    table = format_result(result)
    assert "images per second" in table and "the rest" in table
    assert ("share of a matrix product's" in table) == computes
    assert json.loads(json.dumps(result)) == result


def test_configurations_take_turns(monkeypatch):
    turns = []

    class Fake:
        def __init__(self, name):
            self.name = name

        def step(self):
            turns.append(self.name)

        def start(self):
            turns.append(f"{self.name} starts")

    speed._take_turns([Fake("a"), Fake("b")], 1, 2)
    assert turns == ["a", "b", "a starts", "a", "b starts", "b", "a", "b"]


def measured(seconds, images):
    return {
        "name": "x",
        "seconds": seconds,
        "median_seconds": seconds[0],
        "images_per_step": images,
        "images_per_second": images / seconds[0],
        "peak_memory_bytes": 10**9,
        "operations_per_step": 10**9,
        "operations_per_second": 10**9,
        "peak_operations_per_second": 2 * 10**9,
        "peak_dtype": "float32",
        "share_of_peak": 0.5,
        "stages": {"only here": images / 10, "the rest": 1 - images / 10},
    }


def test_the_table_compares_round_by_round():
    # Each round is twice as slow as the one before: only ratios within a round mean something.
    both = [measured([1.0, 2.0, 4.0], 1), measured([1.0, 2.0, 4.0], 3)]
    table = format_result({"configurations": both})
    assert "2 makes 3.00 times as many images per second as 1." in table
    assert "50% of 2 (float32)" in table
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.slow
def test_two_configurations_are_measured_in_their_own_processes(tiny):
    configuration, images = tiny
    other = Configuration(CONFIG, (*configuration.overrides, "SOLVER.IMS_PER_BATCH", "4"))
    result = analyze_speed("train", [configuration, other], 1, 2, images)
    first, second = result["configurations"]
    assert (first["images_per_step"], second["images_per_step"]) == (2, 4)
    assert second["operations_per_step"] > 1.3 * first["operations_per_step"]
    assert "2 makes" in format_result(result)


@pytest.mark.parametrize(
    ("file", "overrides", "error"),
    [
        ("configs/nowhere.yaml", (), FileNotFoundError),
        (CONFIG, ("MODEL.CLIP.ARC", "x"), ValueError),
        (CONFIG, ("MODEL.CLIP.ARCH",), ValueError),
    ],
)
def test_wrong_configurations_are_refused_before_anything_is_measured(file, overrides, error):
    with pytest.raises(error):
        analyze_speed("eval", [Configuration(CONFIG, ()), Configuration(file, overrides)], 0, 1)


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="1 warm-up and 0 counted steps"):
        analyze_speed("eval", [Configuration(CONFIG, ())], 1, 0)


def test_it_falls_back_to_the_cpu_and_loads_nothing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cfg = Configuration(CONFIG, ("MODEL.WEIGHTS", "somewhere.pth")).load()
    assert (cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS, cfg.MODEL.CLIP.PRETRAINED) == ("cpu", "", "")
