"""The command line, in processes of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import train_net

from ..conftest import SMALL_TRAINING, write_images

ROOT = Path(__file__).resolve().parents[2]
TRAIN_NET = str(ROOT / "tools" / "train_net.py")


@pytest.fixture
def command(tmp_path, tiny_vit_json):
    """Arguments of a tiny training on ``output``, and the environment to run it in."""
    write_images(tmp_path / "images")
    overrides = [
        *("MODEL.CLIP.ARCH", tiny_vit_json, "MODEL.CLIP.PRETRAINED", ""),
        *("MODEL.CLIP.RESOLUTION", "(64, 64)", "MODEL.PIXELCLIP.MASK_RESOLUTION", "(32, 32)"),
        *("MODEL.PIXELCLIP.NUM_CLUSTERS", "8", "DATASETS.TEST", "()"),
        *SMALL_TRAINING,
    ]
    environment = {**os.environ, "SAM_DATASETS": str(tmp_path / "images")}

    def arguments(output, *flags, extra=()):
        config = ["--config-file", str(ROOT / "configs" / "pixelclip_vitb16.yaml")]
        last = ["OUTPUT_DIR", str(tmp_path / output), *extra]
        return [TRAIN_NET, *config, *flags, *overrides, *last]

    return arguments, environment


def run(arguments, environment, launcher=(sys.executable,)):
    return subprocess.run(
        [*launcher, *arguments], env=environment, capture_output=True, text=True, timeout=600
    )


def log_of(folder):
    lines = (folder / "iterations.jsonl").read_text().splitlines()
    return {line["iteration"]: line for line in map(json.loads, lines)}


def test_short_training_from_the_command_line(command, tmp_path):
    arguments, environment = command
    result = run(arguments("short", extra=("SOLVER.MAX_ITER", "2")), environment)
    assert result.returncode == 0, result.stderr
    assert list(log_of(tmp_path / "short")) == [1, 2]
    assert (tmp_path / "short" / "model_final.pth").exists()
    assert "MODEL.CLIP.PRETRAINED is empty" in (tmp_path / "short" / "log.txt").read_text()


@pytest.mark.slow
def test_killed_training_resumes_to_the_same_results(command, tmp_path):
    arguments, environment = command
    longer = ("SOLVER.MAX_ITER", "40", "SOLVER.CHECKPOINT_PERIOD", "5")
    whole = run(arguments("whole", extra=longer), environment)
    assert whole.returncode == 0, whole.stderr
    assert "No GPU was found: running in one process on cpu." in whole.stdout
    killed = subprocess.Popen(
        [sys.executable, *arguments("killed", extra=longer)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (tmp_path / "killed" / "last_checkpoint").exists():
        assert killed.poll() is None
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert max(log_of(tmp_path / "killed")) < 40
    resumed = run(arguments("killed", "--resume", extra=longer), environment)
    assert resumed.returncode == 0, resumed.stderr
    assert log_of(tmp_path / "killed") == log_of(tmp_path / "whole")


@pytest.mark.slow
def test_torchrun_with_two_processes_equals_one(command, tmp_path):
    arguments, environment = command
    one = run(arguments("one"), environment)
    assert one.returncode == 0, one.stderr
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    two = run(arguments("two"), {**environment, "OMP_NUM_THREADS": "1"}, torchrun)
    assert two.returncode == 0, two.stderr
    expected, actual = log_of(tmp_path / "one"), log_of(tmp_path / "two")
    assert list(actual) == list(expected) == [1, 2, 3, 4]
    for iteration, line in expected.items():
        assert actual[iteration] == pytest.approx(line, rel=1e-4)


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        (("DATASETS.TRAIN", "('sa1b_trian',)"), "'sa1b_trian' in DATASETS is not registered"),
        (("MODEL.WEIGHTS", "nowhere.pth"), "does not exist"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    command, extra, problem, tmp_path, monkeypatch
):
    arguments, _ = command
    monkeypatch.setattr(sys, "argv", arguments("bad", extra=extra))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises((ValueError, FileNotFoundError), match=problem):
        train_net.main()
    assert not (tmp_path / "bad").exists()
