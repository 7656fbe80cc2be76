import itertools
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from pixelclip.mask_generation.workers import choose_devices, run_tasks

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


def test_a_network_gets_a_gpu_for_each_process(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(device) for device in choose_devices(True, 3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert len(choose_devices(True, None)) == 2
    assert set(choose_devices(False, 3)) == {torch.device("cpu")}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert choose_devices(True, None) == [torch.device("cpu")]
    assert len(choose_devices(False, None)) == 6
    with pytest.raises(ValueError, match="0 workers"):
        choose_devices(True, 0)


def square(number, device):
    """The result, and where it was computed."""
    if number < 0:
        raise ValueError("negative")
    return number * number, (str(device), os.getpid())


def die(number, device):
    os.kill(os.getpid(), signal.SIGKILL)


def test_one_worker_is_this_process_and_tasks_are_done_when_asked_for():
    results = run_tasks(square, iter([2, -1]), [CPU])
    assert next(results) == (4, ("cpu", os.getpid()))
    with pytest.raises(ValueError, match="negative"):
        next(results)


@pytest.mark.slow
def test_workers_share_the_tasks_and_have_a_device_each():
    devices = [CPU, torch.device("cuda", 1)]
    results = list(run_tasks(square, iter(range(40)), devices))
    assert [result for result, _ in results] == [number * number for number in range(40)]
    origins = {origin for _, origin in results}
    assert len(origins) == len({process for _, process in origins}) == 2
    assert os.getpid() not in {process for _, process in origins}
    assert {device for device, _ in origins} == {"cpu", "cuda:1"}


@pytest.mark.slow
def test_errors_are_passed_on_and_a_killed_worker_is_explained():
    with pytest.raises(ValueError, match="^negative$"):
        list(run_tasks(square, [1, -1, 2], [CPU, CPU]))
    with pytest.raises(RuntimeError, match="worker process was killed.*same command"):
        list(run_tasks(die, [1], [CPU, CPU]))


def wait_for(is_done, seconds=300):
    end = time.monotonic() + seconds
    while not is_done():
        assert time.monotonic() < end
        time.sleep(0.05)


def sleep(folder, number, device):
    (folder / str(os.getpid())).touch()
    time.sleep(0.1)


def sleep_in_workers(folder):
    list(run_tasks(partial(sleep, Path(folder)), itertools.count(), [CPU, CPU]))


def is_running(process):
    state = Path(f"/proc/{process}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path):
    module = "tests.mask_generation.test_workers"
    code = f"import {module}; {module}.sleep_in_workers({str(tmp_path)!r})"
    parent = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
    parent.kill()
    parent.wait()
    workers = [int(path.name) for path in tmp_path.iterdir()]
    wait_for(lambda: not any(is_running(worker) for worker in workers))
