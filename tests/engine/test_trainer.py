import json
import math
from pathlib import Path

import pytest
import torch

from pixelclip.engine import Trainer
from pixelclip.engine.hooks import IterationLog


def make_trainer(cfg, resume=False):
    torch.manual_seed(cfg.SEED)  # what Detectron2's default_setup does in train_net.py
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    return trainer


def run(cfg, resume=False):
    trainer = make_trainer(cfg, resume)
    trainer.train()
    return trainer


def log_of(cfg):
    lines = (Path(cfg.OUTPUT_DIR) / "iterations.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_trains_logs_evaluates_and_writes_checkpoints(train_config):
    trainer = run(train_config)
    lines = log_of(train_config)
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4]
    assert all(math.isfinite(line["total_loss"]) for line in lines)
    assert all(0 < line["clusters/largest"] <= 1 for line in lines)
    assert lines[0]["lr"] > lines[-1]["lr"]
    names = {path.name for path in Path(train_config.OUTPUT_DIR).glob("*.pth")}
    assert names == {"model_0000001.pth", "model_0000003.pth", "model_final.pth"}
    assert 0 <= trainer._last_eval_results["sem_seg"]["mIoU"] <= 100


def test_resumed_run_equals_the_uninterrupted_one(train_config, tmp_path):
    whole = run(train_config)
    resumed_config = train_config.clone()
    resumed_config.OUTPUT_DIR = str(tmp_path / "broken_off")
    Path(resumed_config.OUTPUT_DIR).mkdir()
    broken_off = make_trainer(resumed_config)
    broken_off.register_hooks([StopAfter(iteration=3)])
    with pytest.raises(KeyboardInterrupt):
        broken_off.train()
    assert [line["iteration"] for line in log_of(resumed_config)] == [1, 2, 3]
    # Another seed in the config: the checkpoint's counts.
    resumed_config.SEED = 8
    resumed = run(resumed_config, resume=True)
    assert [line["iteration"] for line in log_of(resumed_config)] == [1, 2, 3, 3, 4]
    assert log_of(resumed_config)[-2:] == log_of(train_config)[-2:]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    states = [t._trainer.optimizer.state_dict()["state"] for t in (whole, resumed)]
    for index, state in states[0].items():
        assert all(torch.equal(v, states[1][index][k]) for k, v in state.items())


class StopAfter(IterationLog):
    """Breaks the training off at the start of the iteration after ``iteration``."""

    def __init__(self, iteration):
        self.iteration = iteration

    def before_step(self):
        if self.trainer.iter == self.iteration:
            raise KeyboardInterrupt

    def after_step(self):
        pass


def test_evaluation_of_a_checkpoint_repeats_the_figures(train_config):
    trainer = run(train_config)
    train_config.MODEL.WEIGHTS = str(Path(train_config.OUTPUT_DIR) / "model_final.pth")
    train_config.SEED = 8
    fresh = make_trainer(train_config)
    assert fresh.start_iter == 0
    results = Trainer.test(train_config, fresh.model)
    expected = {k: v for k, v in trainer._last_eval_results["sem_seg"].items() if v == v}
    assert {k: v for k, v in results["sem_seg"].items() if v == v} == expected


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["DATASETS.TRAIN", ("sa1b_trian",)], "'sa1b_trian'.*sa1b_train"),
        (["DATASETS.TEST", ("ade",)], "'ade'.*ade20k_150_test_sem_seg"),
        (["SOLVER.AMP.ENABLED", True], "AMP"),
        (["MODEL.CLIP.ARCH", "ViT-B-17"], "ViT-B-17"),
        (["MODEL.CLIP.FINETUNE", "some"], "attention, full, none"),
        (["MODEL.PIXELCLIP.TEST_TEMPLATES", "none"], "imagenet_select"),
    ],
)
def test_bad_settings_are_refused_before_any_work(
    train_config, overrides, problem, monkeypatch
):
    monkeypatch.setattr(Trainer, "build_train_loader", lambda *_, **__: pytest.fail("data read"))
    train_config.merge_from_list(overrides)
    with pytest.raises(ValueError, match=problem):
        Trainer(train_config)


@pytest.mark.parametrize("variable", ["SAM_DATASETS", "DETECTRON2_DATASETS"])
def test_missing_roots_are_named(train_config, monkeypatch, tmp_path, variable):
    train_config.DATASETS.TEST = ("voc_2012_test_sem_seg",)
    if variable == "SAM_DATASETS":
        train_config.DATASETS.TEST = ()
    monkeypatch.setenv(variable, str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=f"nowhere.*{variable}"):
        Trainer(train_config)
