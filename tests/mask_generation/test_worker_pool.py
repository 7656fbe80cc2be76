import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from pixelclip.mask_generation.worker_pool import run_tasks

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


class Square:
    """Says the device and process it was prepared for, with each result."""

    def __init__(self, device):
        self.origin = (str(device), os.getpid())

    def __call__(self, number):
        if number < 0:
            raise ValueError("no root")
        return number * number, self.origin


class Killed:
    def __init__(self, device):
        pass

    def __call__(self, number):
        os.kill(os.getpid(), signal.SIGKILL)


def test_one_worker_is_this_process_and_starts_with_the_first_task():
    results = run_tasks(Square, iter([2, 3]), [CPU])
    assert next(results) == (4, ("cpu", os.getpid()))
    assert [value for value, _ in results] == [9]


@pytest.mark.slow
def test_workers_share_the_tasks_and_have_a_device_each():
    devices = [CPU, torch.device("cuda", 1)]
    results = dict(run_tasks(Square, range(40), devices))
    assert sorted(results) == [number * number for number in range(40)]
    origins = set(results.values())
    assert len({process for _, process in origins}) == len(origins)
    assert os.getpid() not in {process for _, process in origins}
    assert {device for device, _ in origins} <= {"cpu", "cuda:1"}


@pytest.mark.slow
def test_errors_are_passed_on_and_a_killed_worker_is_explained():
    with pytest.raises(ValueError, match="no root"):
        list(run_tasks(Square, [1, -1, 2], [CPU, CPU]))
    with pytest.raises(RuntimeError, match="worker process was killed.*same command"):
        list(run_tasks(Killed, [1], [CPU, CPU]))


def wait_for(is_done, seconds=300):
    end = time.monotonic() + seconds
    while not is_done():
        assert time.monotonic() < end
        time.sleep(0.05)


class Sleep:
    def __init__(self, folder, device):
        (folder / str(os.getpid())).touch()

    def __call__(self, number):
        time.sleep(600)


def sleep_in_workers(folder):
    list(run_tasks(partial(Sleep, Path(folder)), range(2), [CPU, CPU]))


def is_running(process):
    state = Path(f"/proc/{process}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path):
    module = "tests.mask_generation.test_worker_pool"
    code = f"import {module}; {module}.sleep_in_workers({str(tmp_path)!r})"
    parent = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
    parent.kill()
    parent.wait()
    workers = [int(path.name) for path in tmp_path.iterdir()]
    wait_for(lambda: not any(is_running(worker) for worker in workers))
