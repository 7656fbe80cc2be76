import copy
import math

import pytest
import torch
from detectron2.utils.events import EventStorage

from pixelclip import PixelCLIP
from pixelclip.engine.solver import build_optimizer
from pixelclip.engine.training_step import TrainingStep

from ..conftest import RecordingAssignment, make_batch, make_tiny_config

COUNTS = (5, 1, 0, 3)  # masks of each image
FEW = (2, 1)  # for float16, in which the decoder is slow on a CPU
CLIPPING = [
    *("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model"),
    *("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.01),
]


@pytest.fixture
def config(tiny_config):
    """Each mask's cluster is its nearest, no matter what else is in the batch."""
    tiny_config.MODEL.PIXELCLIP.ASSIGNMENT = "argmax"
    tiny_config.SOLVER.BASE_LR = 1e-3
    tiny_config.MODEL.PIXELCLIP.NUM_CLUSTERS = 4
    return tiny_config


@pytest.fixture
def model(config):
    torch.manual_seed(0)
    return PixelCLIP(config)


def make_unequal_batch(counts=COUNTS, seed=0):
    return [make_batch(1, count, seed=10 * seed + i)[0] for i, count in enumerate(counts)]


def run(config, model, batches, **arguments):
    """Losses of a step per batch, and the trainer."""
    trainer = TrainingStep(model, batches, build_optimizer(config, model), **arguments)
    losses = []
    with EventStorage(0) as storage:
        for trainer.iter in range(len(batches)):
            trainer.run_step()
            losses.append(storage.latest()["total_loss"][0])
    return losses, trainer


@pytest.mark.parametrize("steps", [2, 4])
@pytest.mark.parametrize("counts", [COUNTS, (0, 0, 4, 2)])
def test_parts_equal_the_whole_batch(config, model, steps, counts):
    other = copy.deepcopy(model)
    expected, _ = run(config, model, [make_unequal_batch(counts)])
    actual, _ = run(config, other, [make_unequal_batch(counts)], accumulation_steps=steps)
    assert actual == pytest.approx(expected, rel=1e-5)
    for (name, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
        if one.grad is not None:
            scale = one.grad.abs().max().item()
            torch.testing.assert_close(two.grad, one.grad, atol=1e-5 * scale, rtol=1e-3, msg=name)


def test_parts_without_any_mask_train_nothing(config, model):
    losses, _ = run(config, model, [make_unequal_batch((0, 0))], accumulation_steps=2)
    assert losses == [0]
    assert all(p.grad.abs().sum() == 0 for p in model.parameters() if p.requires_grad)


def test_the_teacher_moves_once_in_a_batch(config, model):
    model.teacher.momentum = 0.5
    with torch.no_grad():
        model.image_encoder.visual.proj.add_(1)
    before = model.teacher.image_encoder.visual.proj.clone()
    run(config, model, [make_unequal_batch()], accumulation_steps=4)
    moved = model.teacher.image_encoder.visual.proj - before
    torch.testing.assert_close(moved, torch.full_like(moved, 0.5))
    model.teacher.update(model.image_encoder)
    assert (model.teacher.image_encoder.visual.proj - before - moved).abs().sum() > 0


@pytest.mark.slow
def test_bfloat16_follows_float32_over_fifty_steps(tiny_vit_json):
    config = make_tiny_config(tiny_vit_json)
    config.SOLVER.BASE_LR = 2e-4
    config.merge_from_list(CLIPPING)
    torch.manual_seed(0)
    models = [PixelCLIP(config) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    # With random weights most masks lie between clusters: one that falls to another side changes
    # what is learned from then on. What is compared is the arithmetic, so the clusters are shared.
    shared = RecordingAssignment(models[0])
    batches = [make_unequal_batch((5, 1, 3, 3), seed=i % 3) for i in range(50)]
    exact, _ = run(config, models[0], batches)
    own = RecordingAssignment(models[1], given=shared.recorded)
    rounded, _ = run(config, models[1], batches, precision="bfloat16")
    assert sum(rounded) == pytest.approx(sum(exact), rel=0.01)
    assert rounded != exact
    pairs = zip(shared.recorded[:10], own.recorded[:10], strict=True)
    assert sum((one == other).float().mean().item() for one, other in pairs) / 10 > 0.8
    parameters = list(models[1].parameters())
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in parameters)


def test_float16_clips_the_unscaled_gradient_and_keeps_its_scale(config, model):
    config.merge_from_list(CLIPPING)
    exact, _ = run(config, copy.deepcopy(model), [make_unequal_batch(FEW)])
    losses, trainer = run(config, model, [make_unequal_batch(FEW)], precision="float16")
    assert losses == pytest.approx(exact, rel=0.01)
    norms = [p.grad.norm() for p in model.parameters() if p.grad is not None]
    assert torch.stack(norms).norm().item() == pytest.approx(0.01, rel=1e-3)
    state = trainer.state_dict()
    assert state["grad_scaler"]["scale"] > 1
    state["grad_scaler"]["scale"] = 7.0
    trainer.load_state_dict(state)
    assert trainer.grad_scaler.get_scale() == 7.0


def test_an_overflow_skips_the_step_and_lowers_the_scale(config, model):
    trainer = TrainingStep(
        model, [make_unequal_batch(FEW)], build_optimizer(config, model), precision="float16"
    )
    before = [p.clone() for p in model.parameters() if p.requires_grad]
    model.class_prompts.tokens.register_hook(lambda gradient: gradient * math.inf)
    scale = trainer.grad_scaler.get_scale()
    trainer.iter = 0
    with EventStorage(0):
        trainer.run_step()
    assert trainer.grad_scaler.get_scale() == scale / 2
    after = [p for p in model.parameters() if p.requires_grad]
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))


def test_checkpoints_of_other_precisions_load(config, model):
    _, plain = run(config, model, [make_unequal_batch(FEW)])
    _, scaled = run(config, model, [make_unequal_batch(FEW)], precision="float16")
    state = plain.state_dict()
    scaled.load_state_dict(state)
    plain.load_state_dict(scaled.state_dict())
    assert scaled.grad_scaler.get_scale() == 65536


def test_an_infinite_loss_stops_the_training(config, model):
    with torch.no_grad():
        model.mask_decoder.proj.bias.fill_(math.nan)
    with pytest.raises(FloatingPointError):
        run(config, model, [make_unequal_batch()], accumulation_steps=2)
