import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage

from pixelclip.data.mapper import MaskDatasetMapper
from pixelclip.engine import Trainer, training_step
from pixelclip.engine.bad_numbers import replay_bad_step
from pixelclip.engine.solver import build_optimizer
from pixelclip.engine.training_step import BadNumbersError, TrainingStep

from ..conftest import make_batch

of_the_vit = pytest.mark.parametrize("tiny_config_of_each", ["vit"], indirect=True)
ROOT = Path(__file__).resolve().parents[2]


class Spoil(HookBase):
    """Sets one value of a parameter before an iteration (counted from 0)."""

    def __init__(self, name, value, iteration):
        self.name, self.value, self.iteration = name, value, iteration

    def before_step(self):
        if self.trainer.iter == self.iteration:
            with torch.no_grad():
                self.trainer.model.get_parameter(self.name).view(-1)[0] = self.value


def stop(cfg, hook=None):
    """Train until the numbers are bad; the error's text, and the file that was kept."""
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.register_hooks([hook])
    with pytest.raises(FloatingPointError) as error:
        trainer.train()
    (kept,) = Path(cfg.OUTPUT_DIR, "bad_numbers").iterdir()
    return str(error.value), kept


@of_the_vit
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_bad_loss_names_iteration_images_and_file(train_config, value):
    text, kept = stop(train_config, Spoil("mask_decoder.proj.bias", value, 2))
    assert text.startswith("Iteration 3: the loss is {'loss_masks': nan}.")
    names = {sample["image_id"] for sample in torch.load(kept)["batch"]}
    assert len(names) == 2
    assert all(name in text for name in names)
    assert str(kept) in text and kept.name == "iteration_0000003_rank_0.pth"
    lines = Path(train_config.OUTPUT_DIR, "iterations.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [1, 2]
    # The checkpoint of iteration 2 is not touched.
    assert Path(train_config.OUTPUT_DIR, "last_checkpoint").read_text() == "model_0000001.pth"


@of_the_vit
@pytest.mark.parametrize("steps", [1, 2])
def test_a_kept_step_is_repeated_from_its_file_alone(train_config, steps, monkeypatch, tmp_path):
    train_config.SOLVER.ACCUMULATION_STEPS = steps
    _, kept = stop(train_config, Spoil("mask_decoder.proj.bias", math.nan, 1))
    monkeypatch.setenv("SAM_DATASETS", str(tmp_path / "gone"))
    replay = replay_bad_step(str(kept))
    assert replay.iteration == 2
    assert math.isnan(replay.losses["loss_masks"])
    assert replay.bad_parameters == ["mask_decoder.proj.bias"]
    assert "mask_decoder.proj.weight" in replay.bad_gradients
    assert all(math.isnan(loss) for loss in replay.image_losses.values())


@of_the_vit
def test_the_image_and_the_module_are_found(train_config, monkeypatch):
    map_record = MaskDatasetMapper.map_record

    def map_with_nan(self, record):
        sample = map_record(self, record)
        if record["image_id"] == "sa_3":
            sample["image_strong"] = sample["image_strong"].float()
            sample["image_strong"][0, 20, 20] = math.nan
        return sample

    monkeypatch.setattr(MaskDatasetMapper, "map_record", map_with_nan)
    text, kept = stop(train_config)
    assert "sa_3" in text
    replay = replay_bad_step(str(kept))
    assert not replay.bad_parameters
    assert replay.first_bad_module.startswith("image_encoder.visual")
    assert {n for n, loss in replay.image_losses.items() if not math.isfinite(loss)} == {"sa_3"}
    assert len(replay.image_losses) == 2


@of_the_vit
def test_a_good_step_replays_to_the_very_same_loss(train_config, monkeypatch):
    """That what is repeated is the step: the same weights, teacher, batch and random numbers."""
    monkeypatch.setattr(TrainingStep, "_gradient_is_finite", lambda self: False)
    text, kept = stop(train_config)
    replay = replay_bad_step(str(kept))
    assert f"the loss is finite, {replay.losses}, and its gradient is not" in text
    assert (replay.first_bad_module, replay.bad_gradients) == ("", [])


@pytest.mark.slow
@of_the_vit
def test_the_command_repeats_a_step(train_config):
    _, kept = stop(train_config, Spoil("mask_decoder.proj.bias", math.nan, 0))
    command = [sys.executable, str(ROOT / "tools" / "replay_bad_step.py"), str(kept)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert "stopped at iteration 1: the loss is {'loss_masks': nan}" in result.stdout
    assert "First module with a bad output: mask_decoder" in result.stdout


@of_the_vit
def test_a_step_that_cannot_be_kept_still_stops_with_its_reason(train_config):
    Path(train_config.OUTPUT_DIR, "bad_numbers").write_text("a file in the place of the folder")
    trainer = Trainer(train_config)
    trainer.register_hooks([Spoil("mask_decoder.proj.bias", math.nan, 0)])
    with pytest.raises(FloatingPointError, match="Iteration 1: .* could not be kept: .*bad_num"):
        trainer.train()


def test_what_is_no_kept_step_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no file iteration_"):
        replay_bad_step(str(tmp_path / "iteration_0000001_rank_0.pth"))
    torch.save({"iteration": 1}, tmp_path / "iteration_0000001_rank_1.pth")
    with pytest.raises(ValueError, match=r"iteration_0000001_rank_0\.pth, which holds the weights"):
        replay_bad_step(str(tmp_path / "iteration_0000001_rank_1.pth"))


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
def test_a_bad_gradient_stops_before_it_spoils_the_weights(tiny_config, tiny_model, precision):
    tiny_model.class_prompts.tokens.register_hook(lambda gradient: gradient * math.nan)
    before = {name: value.clone() for name, value in tiny_model.named_parameters()}
    with pytest.raises(BadNumbersError, match="the loss is finite.*its gradient is not"):
        take_steps(tiny_model, tiny_config, 1, precision)
    for name, value in tiny_model.named_parameters():
        if not name.startswith("teacher"):
            assert torch.equal(value, before[name]), name


def test_a_float16_gradient_that_overflows_is_no_bad_number(tiny_config, tiny_model):
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
    with pytest.raises(BadNumbersError, match=r"in the last 2 steps.*bfloat16"):
        take_steps(tiny_model, tiny_config, 4, "float16")


def test_a_bad_loss_in_float16_is_a_bad_number(tiny_config, tiny_model):
    with torch.no_grad():
        tiny_model.mask_decoder.proj.bias.fill_(math.inf)
    with pytest.raises(BadNumbersError, match=r"the loss is .*65504.*bfloat16"):
        take_steps(tiny_model, tiny_config, 1, "float16")
