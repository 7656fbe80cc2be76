"""The command line, in processes of its own."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import train_net

from pixelclip.engine.setup import load_config_of

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
    log = (tmp_path / "short" / "log.txt").read_text()
    assert "MODEL.CLIP.PRETRAINED is empty" in log
    summary = "on sa1b_train: 2 iterations of 2 images on the CPU"
    assert summary in result.stdout.splitlines()[0]
    assert "model_final.pth" in result.stdout.splitlines()[-1]
    for long_text in ("MomentumTeacher", "Running with full config", "Environment info"):
        assert long_text in log and long_text not in result.stdout
    for line in ("iteration: 2/2", "lr of the mask decoder"):
        assert line in log and line in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_all_processes_stop_with_a_checkpoint_and_the_command_to_continue(
    command, tmp_path, number
):
    arguments, environment = command
    longer = ("SOLVER.MAX_ITER", "60", "DATALOADER.NUM_WORKERS", "1")
    whole = run(arguments("whole", extra=longer), environment)
    assert whole.returncode == 0, whole.stderr
    stopped = subprocess.Popen(
        [sys.executable, *arguments("stopped", extra=longer)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (tmp_path / "stopped" / "iterations.jsonl").exists():
        assert stopped.poll() is None
        time.sleep(0.02)
    os.killpg(stopped.pid, number)
    output, errors = stopped.communicate(timeout=600)
    assert stopped.returncode == 130, errors
    assert "Traceback" not in output + errors
    resume = shlex.split(output.splitlines()[-2])
    assert resume[:3] == ["pixelclip", "train", "--resume"]
    resumed = run([TRAIN_NET, *resume[2:]], environment)
    assert resumed.returncode == 0, resumed.stderr
    assert log_of(tmp_path / "stopped") == log_of(tmp_path / "whole")


@pytest.mark.slow
def test_killed_training_resumes_to_the_same_results(command, tmp_path):
    arguments, environment = command
    longer = ("SOLVER.MAX_ITER", "40", "SOLVER.CHECKPOINT_PERIOD", "5")
    whole = run(arguments("whole", extra=longer), environment)
    assert whole.returncode == 0, whole.stderr
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
def test_bad_settings_are_refused_in_one_line_before_anything_is_written(
    command, extra, problem, tmp_path, monkeypatch, capsys
):
    arguments, _ = command
    monkeypatch.setattr(sys, "argv", arguments("bad", extra=extra))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert train_net.main() == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and problem in line
    assert not (tmp_path / "bad").exists()


def overrides_of(*words, evaluate=False):
    return train_net.parse_arguments(words, evaluate).opts


def test_overrides_stand_after_opts_or_at_the_end():
    assert overrides_of("--num-gpus", "2", "SEED", "-1") == ["SEED", "-1"]
    assert overrides_of("--opts", "SEED", "-1") == ["SEED", "-1"]
    assert overrides_of("--opts", "SEED", "1", "--num-gpus", "2") == ["SEED", "1"]
    assert overrides_of("MODEL.CLIP.PRETRAINED", "") == ["MODEL.CLIP.PRETRAINED", ""]
    assert overrides_of("--opts", "DATASETS.TEST", "()", evaluate=True) == ["DATASETS.TEST", "()"]


def test_the_command_to_continue_has_the_user_s_own_options(monkeypatch):
    words = ["--config-file", "my config.yaml", "--resume", "SEED", "1"]
    expected = "pixelclip train --resume --config-file 'my config.yaml' SEED 1"
    assert train_net.parse_arguments(words).resume_command == expected
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert train_net.parse_arguments(words).resume_command.startswith("torchrun ... tools/")


def test_weights_and_output_are_config_keys(tmp_path):
    weights = tmp_path / "weights.pth"
    weights.touch()
    words = ["--config-file", str(ROOT / "configs" / "pixelclip_vitb16.yaml")]
    words += ["--weights", str(weights), "--output", "here"]
    cfg = load_config_of(train_net.parse_arguments([*words, "OUTPUT_DIR", "there"]))
    assert str(weights) == cfg.MODEL.WEIGHTS
    assert cfg.OUTPUT_DIR == "here"


def test_evaluate_is_without_the_options_of_training(capsys):
    assert train_net.parse_arguments(["--weights", "w.pth"], evaluate=True).eval_only
    with pytest.raises(SystemExit):
        train_net.main(["--help"], evaluate=True)
    text = capsys.readouterr().out
    assert "usage: pixelclip evaluate" in text
    assert "--resume" not in text and "--eval-only" not in text
    assert "default: that of --weights" in " ".join(text.split())
