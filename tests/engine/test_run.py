import errno
from types import SimpleNamespace

import pytest
from detectron2.engine import HookBase

from pixelclip.engine import Trainer, run
from pixelclip.engine.interruption import TrainingInterrupted
from pixelclip.engine.run import run_command, train_or_evaluate


@pytest.fixture
def arguments(train_config, monkeypatch, caplog):
    """A command line on a tiny config, whose logs pytest keeps to itself."""
    caplog.set_level("INFO", logger="pixelclip")
    monkeypatch.setattr(run, "setup", lambda _: train_config)
    return SimpleNamespace(eval_only=False, resume=False, resume_command="pixelclip train --resume")


def test_training_says_first_what_is_trained_and_at_last_where_the_weights_are(
    arguments, train_config, caplog
):
    train_or_evaluate(arguments)
    first, *_, last = caplog.messages
    assert "on sa1b_train: 4 iterations of 2 images on the CPU" in first
    assert first.endswith(f"Output: {train_config.OUTPUT_DIR}")
    assert f"{train_config.OUTPUT_DIR}/model_final.pth" in last
    [table] = [text for text in caplog.messages if "| three_images_sem_seg" in text]
    assert "mIoU" in table


def test_an_evaluation_says_what_is_evaluated(arguments, train_config, caplog, monkeypatch):
    # What only training needs is not built.
    for name in ("MomentumTeacher", "MaskDecoder"):
        monkeypatch.delattr(f"pixelclip.meta_arch.{name}")
    arguments.eval_only = True
    assert "mIoU" in train_or_evaluate(arguments)["sem_seg"]
    assert "Evaluating CLIP as it is, without MODEL.WEIGHTS, on the CPU" in caplog.messages[0]
    train_config.DATASETS.TEST = ()
    with pytest.raises(ValueError, match="DATASETS.TEST is empty"):
        train_or_evaluate(arguments)


class Interrupt(HookBase):
    def __init__(self, interruption, saves):
        self.interruption, self.saves = interruption, saves

    def after_step(self):
        if self.saves:
            self.trainer.checkpointer.save("model_0000000", iteration=0)
        raise self.interruption


@pytest.mark.parametrize(
    ("interruption", "saves", "expected"),
    [
        (TrainingInterrupted("Interrupted after iteration 1."), True, "1. To continue from /"),
        (KeyboardInterrupt(), True, "Interrupted. To continue from /"),
        (KeyboardInterrupt(), False, "Interrupted. No checkpoint was written."),
    ],
)
def test_an_interruption_says_how_to_continue(
    arguments, caplog, monkeypatch, interruption, saves, expected
):
    build = Trainer.build_hooks
    hooks = [Interrupt(interruption, saves)]
    monkeypatch.setattr(Trainer, "build_hooks", lambda self: [*hooks, *build(self)])
    with pytest.raises(KeyboardInterrupt):
        train_or_evaluate(arguments)
    assert expected in caplog.messages[-1]
    assert ("    pixelclip train --resume" in caplog.messages[-1]) == saves


@pytest.mark.parametrize(
    ("outcome", "code", "printed"),
    [
        (None, 0, ""),
        (KeyboardInterrupt(), 130, "\nInterrupted.\n"),
        (TrainingInterrupted("after iteration 3"), 130, ""),
        (ValueError("SEED is 'a'."), 1, "error: SEED is 'a'.\n"),
        (OSError(errno.ENOSPC, "no space", "x.pth"), 1, "error: [Errno 28] no space: 'x.pth'\n"),
    ],
)
def test_exit_codes_and_errors_in_one_line(monkeypatch, capsys, outcome, code, printed):
    def launch(main, args):
        if outcome is not None:
            raise outcome

    monkeypatch.setattr(run, "launch", launch)
    assert run_command(SimpleNamespace()) == code
    assert capsys.readouterr().err == printed


def test_what_nobody_expected_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(run, "launch", lambda *_: {}["a bug"])
    with pytest.raises(KeyError, match="a bug"):
        run_command(SimpleNamespace())
