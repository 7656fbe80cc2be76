from pathlib import Path

import pytest
import torch
from detectron2.data import build_detection_train_loader
from detectron2.engine import HookBase
from detectron2.modeling import build_model
from detectron2.utils.env import seed_all_rng

from pixelclip.checkpoint.conversion import convert_checkpoint
from pixelclip.data.mapper import MaskDatasetMapper
from pixelclip.engine import MinimalTrainer
from pixelclip.engine.setup import load_config
from pixelclip.engine.solver import build_lr_scheduler, build_optimizer


class Recorder(HookBase):
    """Each iteration's loss, learning rates, and norm of the gradient that was stepped with."""

    def __init__(self):
        self.losses, self.rates, self.norms = [], [], []

    def before_step(self):
        self.rates.append(self.trainer.optimizer.param_groups[0]["lr"])

    def after_step(self):
        self.losses.append(self.trainer.storage.latest()["total_loss"][0])
        gradients = [p.grad for p in self.trainer.model.parameters() if p.grad is not None]
        self.norms.append(sum(g.square().sum() for g in gradients).sqrt().item())


def train(cfg):
    seed_all_rng(cfg.SEED)
    trainer, recorder = MinimalTrainer(cfg), Recorder()
    trainer.resume_or_load(resume=False)
    trainer.register_hooks([recorder])
    trainer.train()
    return trainer, recorder


def train_directly(cfg, iterations):
    """The same without any trainer."""
    seed_all_rng(cfg.SEED)
    model = build_model(cfg).train()
    optimizer = build_optimizer(cfg, model)
    batches = iter(build_detection_train_loader(cfg, mapper=MaskDatasetMapper(cfg)))
    scheduler = build_lr_scheduler(cfg, optimizer)
    losses = []
    for _ in range(iterations):
        loss = sum(model(next(batches)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return losses


def test_it_trains_evaluates_and_equals_direct_use(train_config):
    assert train_config.SOLVER.CLIP_GRADIENTS.CLIP_TYPE == "full_model"
    trainer, recorder = train(train_config)
    assert recorder.losses == train_directly(train_config, 4)
    assert 0 <= trainer._last_eval_results["sem_seg"]["mIoU"] <= 100


def test_it_starts_from_published_weights_and_its_checkpoints_bring_their_config(
    train_config, tmp_path
):
    train_config.DATASETS.TEST = ()
    first, _ = train(train_config)
    path = Path(train_config.OUTPUT_DIR, "model_final.pth")
    assert load_config(weights=str(path)).SOLVER.MAX_ITER == 4
    convert_checkpoint(path, tmp_path / "published.pth", "published")
    train_config.MODEL.WEIGHTS = str(tmp_path / "published.pth")
    trainer = MinimalTrainer(train_config)
    trainer.resume_or_load(resume=False)
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, first.model.state_dict()[name]), name


def test_the_whole_gradient_is_clipped_and_the_schedule_is_ours(train_config):
    train_config.merge_from_list(["DATASETS.TEST", (), "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 1e-4])
    trainer, recorder = train(train_config)
    assert recorder.norms == pytest.approx([1e-4] * 4, rel=1e-2)
    rates = [group["lr"] / group["initial_lr"] for group in trainer.optimizer.param_groups]
    solver = train_config.SOLVER
    assert rates == pytest.approx([solver.BASE_LR_END / solver.BASE_LR] * len(rates))
    assert recorder.rates == sorted(recorder.rates, reverse=True)
