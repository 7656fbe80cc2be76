"""SIGKILL at random moments: what a name promises is whole, and the next run loses nothing.

More kills: ``KILL_ROUNDS=4 KILL_SEED=7 pytest -m slow -s tests/reliability/test_kills.py``.
"""

import os
import random
import shutil
import time
from pathlib import Path

import pytest

from .killed_work import (
    CONTEXT,
    CheckpointWriting,
    Evaluation,
    Indexing,
    MaskGeneration,
    Preparation,
    Training,
    work,
)

SEED = int(os.environ.get("KILL_SEED", "0"))
ROUNDS = int(os.environ.get("KILL_ROUNDS", "1"))


def wait_for_writing(process, output, before):
    """Until a file is being written next to those of ``before``, or the process has ended."""
    while process.is_alive() and not set(output.glob(".*.pth.*.tmp")) - before:
        time.sleep(0.0005)


def start(kind, folder, output):
    process = CONTEXT.Process(target=work, args=(kind, folder, output, folder / "report.txt"))
    process.start()
    return process


def running(report):
    """Processes that print to the report."""
    outputs = Path("/proc").glob("[0-9]*/fd/1")
    return [path for path in outputs if os.path.realpath(path) == str(report)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [Training, CheckpointWriting, Indexing, Preparation, MaskGeneration, Evaluation]
)
def test_nothing_is_lost_to_kills_at_random_moments(kind, tmp_path):
    chance = random.Random(f"{SEED} {kind.__name__}")
    kind().prepare(tmp_path)
    idle = CONTEXT.Process(target=time.sleep, args=(0,))
    idle.start()  # starts the server, which takes a while
    idle.join()
    begin = time.monotonic()
    whole = start(kind, tmp_path, tmp_path / "whole")
    whole.join(600)
    duration = time.monotonic() - begin
    assert whole.exitcode == 0, (tmp_path / "report.txt").read_text()
    print(f"{kind.__name__}: {duration:.1f} s uninterrupted", flush=True)
    output, finished, written_half = tmp_path / "killed", 0, 0
    for kill in range(kind.kills * ROUNDS):
        while True:
            left_behind = set(output.glob(".*.tmp"))
            process = start(kind, tmp_path, output)
            if kind.at_writing:
                wait_for_writing(process, output, left_behind)
                time.sleep(chance.uniform(0, 0.02))
            else:
                process.join(chance.uniform(0.1, 0.9) * duration)
            process.kill()
            process.join()
            written_half += len(set(output.glob(".*.pth.*.tmp")) - left_behind)
            kind().check_whole(tmp_path, output)
            if process.exitcode == -9:
                break
            # It was finished before: it begins again.
            assert process.exitcode == 0, (tmp_path / "report.txt").read_text()
            kind().check_same(tmp_path, output, tmp_path / "whole")
            shutil.rmtree(output)
            finished += 1
        print(f"{kind.__name__}: kill {kill + 1} at {time.monotonic() - begin:.1f} s", flush=True)
    last = start(kind, tmp_path, output)
    last.join(600)
    assert last.exitcode == 0, (tmp_path / "report.txt").read_text()
    kind().check_same(tmp_path, output, tmp_path / "whole")
    assert not list(output.rglob(".*.tmp")), "what the killed ones left behind is removed"
    assert written_half or not kind.at_writing, "no kill has hit a checkpoint"
    deadline = time.monotonic() + 600
    while running(tmp_path / "report.txt"):
        assert time.monotonic() < deadline, "loading processes outlive the killed ones"
        time.sleep(0.5)
    print(f"{kind.__name__}: {kind.kills * ROUNDS} kills, {finished + 1} whole runs, all the same")
    print(f"{written_half} checkpoints were half-written when their process was killed")
