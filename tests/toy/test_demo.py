"""The demo, at very small numbers and with random weights, through the ordinary parts."""

import json
import logging
import re

import pytest
import torch
from PIL import Image

from pixelclip.engine import Trainer
from pixelclip.toy import datasets, demo, report
from pixelclip.toy.datasets import Split
from pixelclip.toy.demo import open_demo_folder, run_demo
from pixelclip.toy.report import METHODS, describe_demo, next_steps
from pixelclip.toy.scenes import CLASS_NAMES

OVERRIDES = [
    *("MODEL.DEVICE", "cpu", "SOLVER.MAX_ITER", "4"),
    *("SOLVER.CHECKPOINT_PERIOD", "2", "SOLVER.IMS_PER_BATCH", "2"),
    *("MODEL.PIXELCLIP.PROMPT_INITIALIZATION_MASKS", "40"),
]


@pytest.fixture(autouse=True)
def very_small(monkeypatch, tmp_path):
    splits = [Split("train", 11, 4, has_labels=False), Split("test", 13, 3, has_labels=True)]
    monkeypatch.setattr(datasets, "SPLITS", splits)
    monkeypatch.setattr(report, "_BATCHES_CLUSTERED", 2)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    monkeypatch.setattr(demo.os, "cpu_count", lambda: 1)


def weights(output):
    checkpoint = torch.load(output / "training" / "model_final.pth", weights_only=True)
    return checkpoint["model"]


@pytest.mark.slow
def test_an_interrupted_demo_resumes_to_the_same_report(tmp_path, monkeypatch, capsys):
    whole = tmp_path / "whole"
    page, existed = run_demo(whole, OVERRIDES)
    printed = capsys.readouterr()
    assert not existed
    assert printed.out == "", "log lines go to the file"
    for stage in ("scenes", "toy_scenes_test", "training", "report"):
        assert f"{stage}: 100%" in printed.err, "each stage has a bar"
    assert "evaluations before ..." in printed.err
    assert "INFO" not in printed.err
    assert "Total training time" in (whole / "log.txt").read_text()
    check_report(page)

    run_step, steps, interruptions = Trainer.run_step, [], [KeyboardInterrupt]

    def run_step_until_interrupted(self):
        steps.append(self.iter)
        if len(steps) == 4 and interruptions:
            raise interruptions.pop()
        run_step(self)

    monkeypatch.setattr(Trainer, "run_step", run_step_until_interrupted)
    interrupted = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        run_demo(interrupted, OVERRIDES)
    assert not (interrupted / "report.html").exists()
    page, existed = run_demo(interrupted, OVERRIDES)
    assert not existed
    assert steps == [0, 1, 2, 3, 2, 3, *range(4)], "the second training had not begun"
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(interrupted)[name]), name
    assert results(interrupted) == results(whole)

    steps.clear()
    (interrupted / "report.html").unlink()
    assert run_demo(interrupted, OVERRIDES) == (page, False), "killed before its last file"
    assert results(interrupted) == results(whole)
    assert run_demo(interrupted, OVERRIDES) == (page, True)
    with pytest.raises(ValueError, match="other settings"):
        run_demo(interrupted, [*OVERRIDES, "SOLVER.MAX_ITER", "5"])
    assert steps == []
    run_demo(interrupted, OVERRIDES, fresh=True)
    assert steps == [*range(4), *range(4)]
    assert results(interrupted) == results(whole)


def results(output):
    """The report without times."""
    return (output / "report.md").read_text().split("## Time")[0]


def check_report(path):
    page, text = path.read_text(), path.with_suffix(".md").read_text()
    assert not re.search(r"(src|href)=.(?!data:image/png;base64,)", page), "nothing remote"
    assert page.count("data:image/png;base64,") == 2
    for name in CLASS_NAMES:
        assert f">{name}</td>" in page
        assert f"| {name} " in text
    stored = json.loads(
        (path.parent / "evaluation" / "after" / "evaluation" / "toy_scenes_test.json").read_text()
    )
    assert f"{stored['metrics']['sem_seg']['mIoU']:.1f}" in text
    for figure in re.findall(r"!\[.*\]\((.*)\)", text):
        with Image.open(path.parent / figure) as image:
            assert image.width > 700
    assert "4 iterations of 2 scenes" in text
    for command in next_steps(path.parent).values():
        assert command in text
    printed = describe_demo(path)
    assert all(f"| {name} " in printed for name in METHODS.values())
    assert "the best training-free baseline" in printed


def test_a_bad_value_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="SOLVER.MAX_ITER is 0"):
        run_demo(tmp_path / "out", [*OVERRIDES, "SOLVER.MAX_ITER", "0"])
    with pytest.raises(ValueError, match="could not be loaded"):
        run_demo(tmp_path / "out", [*OVERRIDES, "MODEL.CLIP.PRETRAINED", __file__])
    with pytest.raises(ValueError, match="PRETRAINED is empty"):
        run_demo(tmp_path / "out", [*OVERRIDES, "MODEL.CLIP.PRETRAINED", ""])
    # Good for the training as published, and not for the one beyond it.
    with pytest.raises(ValueError, match="BASE_LR_END, 0.0004"):
        run_demo(tmp_path / "out", [*OVERRIDES, "SOLVER.BASE_LR", "0.0003"])
    with pytest.raises(ValueError, match="'kmeans'"):
        run_demo(tmp_path / "out", [*OVERRIDES, "MODEL.PIXELCLIP.ASSIGNMENT", "none"])
    assert not (tmp_path / "out").exists()


def test_loggers_are_restored(tmp_path, monkeypatch):
    def state():
        loggers = [logging.getLogger(name) for name in demo._LOGGERS]
        return [(logger.level, list(logger.handlers), logger.propagate) for logger in loggers]

    before = state()
    roots = []
    monkeypatch.setattr(demo, "write_scenes", lambda root, _: roots.append(root) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_demo(tmp_path / "out", OVERRIDES)
    assert state() == before
    assert roots == [tmp_path / "datasets"]


def state(path):
    return json.loads((path / "demo.json").read_text())


def test_times_add_up_over_attempts(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        open_demo_folder(tmp_path / "new", "a") as folder,
        folder.timed("training"),
    ):
        raise KeyboardInterrupt
    first = state(tmp_path / "new")["seconds"]["training"]
    with open_demo_folder(tmp_path / "new", "a") as folder, folder.timed("training"):
        pass
    assert state(tmp_path / "new")["seconds"]["training"] > first


def test_a_demo_with_a_page_is_finished(tmp_path):
    with open_demo_folder(tmp_path, "a") as folder:
        assert not folder.is_finished
    (tmp_path / "report.html").touch()
    with open_demo_folder(tmp_path, "a") as folder:
        assert folder.is_finished


def test_another_demo_is_refused_unless_fresh(tmp_path):
    with open_demo_folder(tmp_path, "a"):
        pass
    (tmp_path / "report.html").touch()
    (tmp_path / "training").mkdir()
    (tmp_path / "datasets").mkdir()
    (tmp_path / "mine.txt").touch()
    with (
        pytest.raises(ValueError, match="other settings or other weights.*--fresh"),
        open_demo_folder(tmp_path, "b"),
    ):
        pass
    assert (tmp_path / "training").exists()
    with open_demo_folder(tmp_path, "b", fresh=True) as folder:
        assert not folder.is_finished
        assert folder.seconds == {}
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"datasets", "mine.txt", "demo.json", ".lock"}


@pytest.mark.parametrize("fresh", [False, True])
def test_files_of_something_else_are_left_alone(tmp_path, fresh):
    (tmp_path / "training").mkdir()
    with (
        pytest.raises(ValueError, match="holds training, which no demo has made"),
        open_demo_folder(tmp_path, "a", fresh),
    ):
        pass
    assert (tmp_path / "training").is_dir()


def test_two_demos_at_a_time_are_refused(tmp_path):
    with open_demo_folder(tmp_path, "a"):
        with (
            pytest.raises(ValueError, match="another demo is running"),
            open_demo_folder(tmp_path, "a"),
        ):
            pass
        with (
            pytest.raises(ValueError, match="another demo is running"),
            open_demo_folder(tmp_path, "a", fresh=True),
        ):
            pass
    with open_demo_folder(tmp_path, "a"):
        pass


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), open_demo_folder(tmp_path / "file" / "demo", "a"):
        pass
