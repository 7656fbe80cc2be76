import json
import math
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage

from pixelclip import PixelCLIP
from pixelclip.data.mapper import MaskDatasetMapper
from pixelclip.engine import Trainer, training_step
from pixelclip.engine.non_finite import NonFiniteError
from pixelclip.engine.solver import build_optimizer
from pixelclip.engine.training_step import TrainingStep

from ..conftest import make_batch, remove_stochastic_depth

vit_only = pytest.mark.parametrize("tiny_config_of_each", ["vit"], indirect=True)


class Spoil(HookBase):
    """Sets one value of a parameter before an iteration (counted from 0)."""

    def __init__(self, name, value, iteration):
        self.name, self.value, self.iteration = name, value, iteration

    def before_step(self):
        if self.trainer.iter == self.iteration:
            with torch.no_grad():
                self.trainer.model.get_parameter(self.name).view(-1)[0] = self.value


def stop(cfg, hook=None):
    """Train until the loss is not finite; the error's text, and the saved file."""
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.register_hooks([hook])
    with pytest.raises(FloatingPointError) as error:
        trainer.train()
    (saved,) = Path(cfg.OUTPUT_DIR, "non_finite").iterdir()
    return str(error.value), saved


@vit_only
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_loss_names_iteration_images_and_file(train_config, value):
    text, saved = stop(train_config, Spoil("mask_decoder.proj.bias", value, 2))
    assert text.startswith("Iteration 3: the loss is {'loss_masks': nan}.")
    names = {sample["image_id"] for sample in torch.load(saved)["batch"]}
    assert len(names) == 2
    assert all(name in text for name in names)
    assert str(saved) in text and saved.name == "iteration_0000003_rank_0.pth"
    lines = Path(train_config.OUTPUT_DIR, "iterations.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [1, 2]
    # The checkpoint of iteration 2 is not touched.
    assert Path(train_config.OUTPUT_DIR, "last_checkpoint").read_text() == "model_0000001.pth"


@vit_only
def test_a_saved_step_is_repeated_from_its_file_alone(train_config, monkeypatch):
    """The same weights, teacher and batch give the same loss."""
    monkeypatch.setattr(TrainingStep, "_gradient_is_finite", lambda _: torch.tensor(False))
    text, saved = stop(train_config)
    step = torch.load(saved, weights_only=True)
    model = PixelCLIP(train_config).train()
    model.load_state_dict(step["model"])
    remove_stochastic_depth(model)
    with model.teacher.held():
        loss = model(step["batch"])["loss_masks"].item()
    assert f"the loss is finite, {{'loss_masks': {loss}}}, and its gradient is not" in text
    assert step["iteration"] == 1 and "MODEL:" in step["config"]


@vit_only
def test_the_image_is_named(train_config, monkeypatch):
    map_record = MaskDatasetMapper.map_record

    def map_with_nan(self, record):
        sample = map_record(self, record)
        if record["image_id"] == "sa_3":
            sample["image_strong"] = sample["image_strong"].float()
            sample["image_strong"][0, 20, 20] = math.nan
        return sample

    monkeypatch.setattr(MaskDatasetMapper, "map_record", map_with_nan)
    text, _ = stop(train_config)
    assert "sa_3" in text


@vit_only
def test_a_step_that_cannot_be_saved_still_stops_with_its_reason(train_config):
    Path(train_config.OUTPUT_DIR, "non_finite").write_text("a file in the place of the folder")
    trainer = Trainer(train_config)
    trainer.register_hooks([Spoil("mask_decoder.proj.bias", math.nan, 0)])
    with pytest.raises(FloatingPointError, match="Iteration 1: .* could not be saved: .*non_fin"):
        trainer.train()


@pytest.fixture
def tiny_config(tiny_config):
    tiny_config.MODEL.PIXELCLIP.NUM_CLUSTERS = 2  # the decoder is slow in float16 on a CPU
    return tiny_config


def take_steps(model, config, count, precision):
    step = TrainingStep(
        model, [make_batch(1)] * count, build_optimizer(config, model), precision=precision
    )
    with EventStorage(0) as storage:
        for step.iter in range(count):
            step.run_step()
    return storage.latest()


@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_a_non_finite_gradient_leaves_the_weights_alone(tiny_config, tiny_model, precision):
    tiny_model.class_prompts.tokens.register_hook(lambda gradient: gradient * math.nan)
    before = {name: value.clone() for name, value in tiny_model.named_parameters()}
    with pytest.raises(NonFiniteError, match="the loss is finite.*its gradient is not"):
        take_steps(tiny_model, tiny_config, 1, precision)
    for name, value in tiny_model.named_parameters():
        if not name.startswith("teacher"):
            assert torch.equal(value, before[name]), name


def test_a_float16_gradient_that_overflows_is_skipped(tiny_config, tiny_model):
    """Until the scale has fallen below the overflow; the step that follows is taken."""
    calls = []

    def overflow(gradient):
        calls.append(gradient)
        return gradient * (math.inf if len(calls) <= 2 else 1)

    tiny_model.class_prompts.tokens.register_hook(overflow)
    scalars = take_steps(tiny_model, tiny_config, 4, "float16")
    assert scalars["amp/gradient_scale"][0] == 65536 / 2**2
    assert scalars["amp/skipped_in_a_row"][0] == 0


def test_a_float16_gradient_that_stays_bad_stops_the_training(
    tiny_config, tiny_model, monkeypatch
):
    monkeypatch.setattr(training_step, "_MAX_SKIPPED_IN_A_ROW", 2)
    tiny_model.class_prompts.tokens.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(NonFiniteError, match=r"in the last 2 steps.*bfloat16"):
        take_steps(tiny_model, tiny_config, 4, "float16")


def test_a_non_finite_loss_in_float16_names_bfloat16(tiny_config, tiny_model):
    with torch.no_grad():
        tiny_model.mask_decoder.proj.bias.fill_(math.inf)
    with pytest.raises(NonFiniteError, match=r"the loss is .*65504.*bfloat16"):
        take_steps(tiny_model, tiny_config, 1, "float16")
