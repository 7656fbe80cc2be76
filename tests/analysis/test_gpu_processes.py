"""Two processes on the CPU stand in for those of several GPUs."""

from functools import partial
from pathlib import Path

import pytest

from pixelclip.analysis import gpu_processes
from pixelclip.analysis.checks import FAILED, PASSED, SKIPPED
from pixelclip.analysis.gpu_processes import (
    check_processes,
    check_scaling,
    mask_counts,
    run_processes,
    time_steps,
)
from pixelclip.analysis.speed import Configuration

from ..conftest import SMALL_TRAINING, write_images
from .test_gpu_correctness import Fixed

# Forked processes must not wait for threads that they do not have.
pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_cases_say_what_they_are():
    assert mask_counts("equal", 2) == [5, 5, 5, 5]
    assert len(set(mask_counts("uneven", 3))) > 3
    assert mask_counts("one without masks", 2) == [6, 6, 0, 0]


@pytest.mark.slow
def test_two_processes_agree_with_one_and_notice_a_killed_one(tiny_config, tmp_path):
    lines = list(check_processes(Fixed(tiny_config), "cpu", 2, tmp_path))
    assert [line.status for line in lines] == [PASSED] * 4, lines
    assert "1 of 1 with a reason" in lines[-1].result


def fail_in_one(cfg, rank, number, folder):
    if rank == 1:
        raise ValueError("a bug")
    return rank


def test_an_error_of_one_process_is_named(tiny_config, tmp_path):
    with pytest.raises(RuntimeError, match="process 1 of 2: ValueError: a bug"):
        run_processes(fail_in_one, tiny_config, 2, tmp_path)


def train_differently(counts, cfg, rank, processes, folder):
    results = gpu_processes_train(counts, cfg, rank, processes, folder)
    results["losses"][-1] *= 1 + 0.01 * rank
    return results


gpu_processes_train = gpu_processes.train


def test_another_loss_fails(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_processes, "train", train_differently)
    line = next(check_processes(Fixed(tiny_config), "cpu", 2, tmp_path))
    assert line.status == FAILED


def test_one_gpu_has_no_efficiency(tmp_path):
    configuration = Configuration("configs/pixelclip_vitb16.yaml", ())
    (line,) = check_scaling(configuration, 1, tmp_path, tmp_path)
    assert (line.status, line.result) == (SKIPPED, "needs 2 GPUs")


def test_efficiency_is_that_of_the_same_batch(tiny_config, tmp_path, monkeypatch):
    tiny_config.SOLVER.IMS_PER_BATCH = 48
    seconds = {1: [0.4], 4: [0.19, 0.2, 0.1, 0.15]}
    monkeypatch.setattr(gpu_processes, "run_processes", lambda _, __, number, ___: seconds[number])
    (line,) = check_scaling(Fixed(tiny_config), 4, tmp_path, tmp_path)
    assert "120 images per second on one, 240 on all, efficiency 50%" in line.result


@pytest.mark.slow
def test_steps_of_two_processes_are_timed(tiny_config, tmp_path, monkeypatch):
    write_images(tmp_path / "images", count=2)
    monkeypatch.setattr(gpu_processes, "_TIMED", 1)
    monkeypatch.setattr(gpu_processes, "_WARM_UP", 1)
    tiny_config.merge_from_list(SMALL_TRAINING)
    work = partial(time_steps, Path(tmp_path / "images"))
    assert all(0 < s < 60 for s in run_processes(work, tiny_config, 2, tmp_path))
