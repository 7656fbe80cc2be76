"""The demo, at very small numbers and with random weights, through the ordinary parts."""

import json
import logging
import math
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from pixelclip.engine import Trainer
from pixelclip.toy import demo, demo_report, scene_files
from pixelclip.toy.demo import run_demo
from pixelclip.toy.demo_report import Evaluation, next_commands
from pixelclip.toy.scene_files import Split
from pixelclip.toy.scenes import CLASS_NAMES
from pixelclip.toy.textures import STUFF_NAMES

CONFIG = str(Path(__file__).resolve().parents[2] / "configs" / "demo" / "toy.yaml")
OVERRIDES = [
    *("MODEL.CLIP.PRETRAINED", "", "MODEL.DEVICE", "cpu", "SOLVER.MAX_ITER", "4"),
    *("SOLVER.CHECKPOINT_PERIOD", "2", "SOLVER.IMS_PER_BATCH", "2"),
]


@pytest.fixture(autouse=True)
def very_small(monkeypatch):
    splits = [Split("train", 11, 4, has_labels=False), Split("test", 13, 3, has_labels=True)]
    monkeypatch.setattr(scene_files, "SPLITS", splits)
    monkeypatch.setattr(demo_report, "_BATCHES_CLUSTERED", 2)
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    monkeypatch.setattr(demo.os, "cpu_count", lambda: 1)


def weights(output):
    checkpoint = torch.load(output / "training" / "model_final.pth", weights_only=True)
    return checkpoint["model"]


@pytest.mark.slow
def test_a_killed_demo_goes_on_to_the_same_report(tmp_path, monkeypatch, capsys):
    whole = tmp_path / "whole"
    report, was_there = run_demo(CONFIG, whole, OVERRIDES)
    printed = capsys.readouterr()
    assert not was_there
    assert printed.out == "", "log lines go to the file"
    for stage in ("scenes", "toy_scenes_test", "training", "report"):
        assert f"{stage}: 100%" in printed.err, "each stage has a bar"
    assert "evaluations before ..." in printed.err
    assert "INFO" not in printed.err
    assert "Total training time" in (whole / "log.txt").read_text()
    check_report(report)

    run_step, steps, interruptions = Trainer.run_step, [], [KeyboardInterrupt]

    def run_step_until_killed(self):
        steps.append(self.iter)
        if len(steps) == 4 and interruptions:
            raise interruptions.pop()
        run_step(self)

    monkeypatch.setattr(Trainer, "run_step", run_step_until_killed)
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        run_demo(CONFIG, broken, OVERRIDES)
    assert not (broken / "report.html").exists()
    report, was_there = run_demo(CONFIG, broken, OVERRIDES)
    assert not was_there
    assert steps == [0, 1, 2, 3, 2, 3]
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(broken)[name]), name
    assert figures(broken) == figures(whole)

    steps.clear()
    state = json.loads((broken / "demo.json").read_text())
    (broken / "demo.json").write_text(json.dumps({**state, "is_finished": False}))
    (broken / "report.md").unlink()
    assert run_demo(CONFIG, broken, OVERRIDES) == (report, False), "killed before its last step"
    assert figures(broken) == figures(whole)
    assert run_demo(CONFIG, broken, OVERRIDES) == (report, True)
    with pytest.raises(ValueError, match="other settings"):
        run_demo(CONFIG, broken, [*OVERRIDES, "SOLVER.MAX_ITER", "5"])
    assert steps == []
    run_demo(CONFIG, broken, OVERRIDES, fresh=True)
    assert steps == [0, 1, 2, 3]
    assert figures(broken) == figures(whole)


def figures(output):
    """The report without times."""
    return (output / "report.md").read_text().split("## Time")[0]


def check_report(report):
    page, text = report.read_text(), report.with_suffix(".md").read_text()
    assert not re.search(r"(src|href)=.(?!data:image/png;base64,)", page), "nothing remote"
    assert page.count("data:image/png;base64,") == 2
    for name in CLASS_NAMES:
        assert f"<td>{name}</td>" in page
        assert f"| {name} " in text
    stored = json.loads(
        (report.parent / "evaluation" / "after" / "evaluation" / "toy_scenes_test.json").read_text()
    )
    assert f"{stored['metrics']['sem_seg']['mIoU']:.1f}" in text
    for path in re.findall(r"!\[.*\]\((.*)\)", text):
        with Image.open(report.parent / path) as picture:
            assert picture.width > 600
    assert "4 iterations of 2 scenes" in text
    for command in next_commands(report.parent):
        assert command in text


def test_no_config_and_no_folder_are_left_behind_by_a_bad_value(tmp_path):
    with pytest.raises(ValueError, match="SOLVER.MAX_ITER is 0"):
        run_demo(CONFIG, tmp_path / "out", [*OVERRIDES, "SOLVER.MAX_ITER", "0"])
    with pytest.raises(ValueError, match="could not be loaded"):
        run_demo(CONFIG, tmp_path / "out", [*OVERRIDES, "MODEL.CLIP.PRETRAINED", CONFIG])
    assert not (tmp_path / "out").exists()


def test_environment_and_loggers_are_as_before(tmp_path, monkeypatch):
    def state():
        loggers = [logging.getLogger(name) for name in demo._LOGGERS]
        return [(logger.level, list(logger.handlers), logger.propagate) for logger in loggers]

    before = state()
    roots = []
    monkeypatch.setattr(demo, "write_scenes", lambda root, _: roots.append(root) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_demo(CONFIG, tmp_path / "out", OVERRIDES)
    assert state() == before
    assert "DETECTRON2_DATASETS" not in demo.os.environ
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "mine"))
    with pytest.raises(ZeroDivisionError):
        run_demo(CONFIG, tmp_path / "out", OVERRIDES)
    assert roots == [tmp_path / "out" / "datasets", tmp_path / "mine"]
    assert demo.os.environ["DETECTRON2_DATASETS"] == str(tmp_path / "mine")


def test_mean_iou_leaves_out_classes_that_do_not_occur():
    metrics = {f"IoU-{name}": float(i) for i, name in enumerate(STUFF_NAMES)}
    evaluation = Evaluation("after", {**metrics, "IoU-sky": math.nan}, None)
    assert evaluation.mean_iou(["grass", "water"]) == 1.5
    assert evaluation.mean_iou(["sky", "water"]) == 2.0
    assert math.isnan(evaluation.mean_iou(["sky"]))


def test_the_next_commands_name_where_the_scenes_are(tmp_path, monkeypatch):
    assert f"DETECTRON2_DATASETS='{tmp_path}/a b/datasets' " in next_commands(tmp_path / "a b")[0]
    monkeypatch.setenv("DETECTRON2_DATASETS", "/data/scenes")
    assert "DETECTRON2_DATASETS=/data/scenes " in next_commands(tmp_path)[1]
