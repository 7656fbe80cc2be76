import itertools
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from pixelclip.utils.workers import run_tasks

ROOT = Path(__file__).resolve().parents[2]


def square(number):
    """The result, and where it was computed."""
    if number < 0:
        raise ValueError("negative")
    return number * number, os.getpid()


def die(number):
    os.kill(os.getpid(), signal.SIGKILL)


def test_one_worker_is_this_process_and_takes_tasks_as_results_are_needed():
    results = run_tasks(square, iter([2, -1]), 1)
    assert next(results) == (4, os.getpid())
    with pytest.raises(ValueError, match="negative"):
        next(results)


@pytest.mark.slow
def test_results_of_several_workers_are_in_order():
    results = list(run_tasks(square, iter(range(40)), 2))
    assert [result for result, _ in results] == [number * number for number in range(40)]
    assert len({process for _, process in results} - {os.getpid()}) == 2


@pytest.mark.slow
def test_errors_are_passed_on_and_a_killed_worker_is_explained():
    with pytest.raises(ValueError, match="^negative$"):
        list(run_tasks(square, [1, -1, 2], 2))
    with pytest.raises(RuntimeError, match="worker process was killed.*same command"):
        list(run_tasks(die, [1], 2))


def wait_for(is_done, seconds=300):
    end = time.monotonic() + seconds
    while not is_done():
        assert time.monotonic() < end
        time.sleep(0.05)


def sleep(folder, number):
    (folder / str(os.getpid())).touch()
    time.sleep(0.1)


def sleep_in_workers(folder):
    list(run_tasks(partial(sleep, Path(folder)), itertools.count(), 2))


def is_running(process):
    state = Path(f"/proc/{process}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path):
    module = "tests.utils.test_workers"
    code = f"import {module}; {module}.sleep_in_workers({str(tmp_path)!r})"
    parent = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
    parent.kill()
    parent.wait()
    workers = [int(path.name) for path in tmp_path.iterdir()]
    wait_for(lambda: not any(is_running(worker) for worker in workers))
