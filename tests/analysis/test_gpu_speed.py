import json

import pytest
import torch

from pixelclip.analysis import gpu_speed, profiling
from pixelclip.analysis.checks import PASSED, SKIPPED, Line
from pixelclip.analysis.gpu_speed import (
    advise,
    check_evaluation,
    check_loading,
    check_matrix_products,
    check_memory,
    check_training,
)
from pixelclip.analysis.memory import MemoryModel

from ..conftest import SMALL_TRAINING, write_images
from .test_gpu_correctness import Fixed


@pytest.fixture
def places(tmp_path):
    write_images(tmp_path / "images", count=3)
    return tmp_path / "images", tmp_path


@pytest.fixture
def tiny(tiny_config, monkeypatch):
    monkeypatch.setitem(profiling._SIDE, "cpu", 64)
    tiny_config.merge_from_list(SMALL_TRAINING)
    return Fixed(tiny_config)


def test_a_training_is_measured(tiny, places):
    step, stages, synchronizations = check_training(tiny, "tiny", {}, *places)
    assert step.status == PASSED and "images per second" in step.result
    assert step.values["images_per_second"] > 0 and step.values["peak_memory_bytes"] > 0
    assert "student, forward" in step.values["stages"] and "%" in stages.result
    assert (synchronizations.status, synchronizations.result) == (SKIPPED, "needs a GPU")
    json.dumps(step.values)


@pytest.mark.slow
def test_an_evaluation_is_measured(tiny, places):
    tiny.cfg.INPUT.MIN_SIZE_TEST = 64
    batch, stages = check_evaluation(tiny, "tiny", *places)
    assert batch.values["images_per_step"] == 1
    assert "image encoder" in batch.values["stages"] and "%" in stages.result


def test_a_batch_that_does_not_fit_is_skipped(tiny, places, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (40e9, 80e9))
    memory = {"memory_model": MemoryModel(10e9, 1e9)._asdict()}
    tiny.cfg.MODEL.DEVICE, tiny.cfg.SOLVER.IMS_PER_BATCH = "cuda", 48
    (line,) = check_training(tiny, "tiny", memory, *places)
    assert line.status == SKIPPED
    assert line.result == "needs 58 GB, 40 are free: 30 images at a time fit"


@pytest.mark.parametrize(
    ("places", "is_good"), [({}, True), ({"a.py:1": 2}, True), ({"a": 1, "b": 2}, False)]
)
def test_two_synchronizations_of_a_step_are_accepted(places, is_good):
    verdict = gpu_speed._judge_synchronizations(places)
    assert verdict.is_good == is_good and verdict.result.startswith(str(sum(places.values())))


@pytest.mark.parametrize(
    ("measured", "is_good"), [(1000, True), (1170, True), (1200, False), (860, False)]
)
def test_counted_memory_may_differ_by_15_percent(tiny, places, monkeypatch, measured, is_good):
    monkeypatch.setattr(gpu_speed, "fit_memory_model", lambda *_: MemoryModel(400.0, 200.0))
    monkeypatch.setattr(gpu_speed, "measure_peak_bytes", lambda *_: measured)
    (line,) = check_memory({"tiny": tiny}, 3, *places)
    assert (line.status == PASSED) == is_good


def test_matrix_products_are_measured(monkeypatch):
    monkeypatch.setitem(profiling._SIDE, "cpu", 64)
    lines = list(check_matrix_products("cpu"))
    assert [line.status for line in lines] == [PASSED, PASSED]
    assert all(line.values["operations_per_second"] > 1e5 for line in lines)


def test_loading_is_compared_with_the_fastest_step(tiny, places, monkeypatch):
    monkeypatch.setattr(gpu_speed, "_LOADING_SECONDS", 0.1)
    monkeypatch.setattr(gpu_speed, "count_cores", lambda: 1)
    steps = [Line(PASSED, "", "", {"kind": "training", "images_per_second": n}) for n in (5, 1e6)]
    rate, advice = check_loading(tiny, steps, 1, places[0])
    assert rate.values["samples_per_second"] > 0
    assert "1000000 images per second" in advice.result
    assert list(check_loading(tiny, [], 1, places[0]))[1].status == SKIPPED


def test_the_advice_says_how_many_loading_processes():
    assert advise(90.0, 30.0, cores=16, gpus=1).endswith("DATALOADER.NUM_WORKERS 3")
    limited = advise(900.0, 30.0, cores=16, gpus=2)
    assert "DATALOADER.NUM_WORKERS 8, all cores for each GPU, where 30 would be needed" in limited
    assert "240 images per second and GPU" in limited
    assert "DATALOADER.NUM_WORKERS 2" in advise(90.0, 30.0, cores=2, gpus=0)
