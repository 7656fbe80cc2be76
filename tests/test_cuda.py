"""A GPU computes what the CPU computes; skipped where there is none."""

import copy

import pytest
import torch
from detectron2.utils.events import EventStorage

from pixelclip import PixelCLIP
from pixelclip.engine.solver import build_optimizer
from pixelclip.engine.training_step import TrainingStep
from pixelclip.modeling.kmeans import kmeans
from pixelclip.modeling.mask_pooling import pool_masks
from pixelclip.modeling.text_classifier import cosine_maps

from .conftest import make_batch, remove_stochastic_depth

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

VOCABULARY = ["sky", "sofa, couch", "traffic light"]


@pytest.fixture(autouse=True)
def full_float32():
    """TF32 rounds to 10 bits, which is another matter than whether the devices agree."""
    allowed = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = allowed


@pytest.fixture
def models(tiny_config_of_each):
    """The same model on the CPU and on the GPU; without stochastic depth."""
    torch.manual_seed(0)
    on_cpu = PixelCLIP(tiny_config_of_each).train()
    remove_stochastic_depth(on_cpu)
    return on_cpu, copy.deepcopy(on_cpu).cuda()


def assert_close(actual, expected, relative=1e-4):
    """Largest difference below ``relative`` times the largest expected magnitude."""
    scale = expected.abs().max().item()
    torch.testing.assert_close(actual.cpu(), expected, atol=relative * scale, rtol=relative)


def stages(model):
    batch = make_batch(3, 5)
    masks, image_index = model.training_masks(batch, model.device)
    clusters = model.class_prompts(model.text_encoder)
    features = model.teacher(model.preprocess([x["image"] for x in batch]))
    logits = model.assignment.logits(pool_masks(features, masks, image_index), clusters)
    maps = cosine_maps(features, clusters).flatten(0, 1)[:, None]
    return {
        "clusters": clusters,
        "features": features,
        "logits": logits,
        "mask logits": model.mask_decoder(maps),
        "assignment": model.assignment.probabilities(logits).argmax(dim=1),
    }


def test_stages_agree(models):
    expected, actual = map(stages, models)
    assert torch.equal(actual.pop("assignment").cpu(), expected.pop("assignment"))
    for name, value in expected.items():
        assert actual[name].is_cuda, name
        assert_close(actual[name], value)


def test_loss_and_gradients_agree(models):
    losses = []
    for model in models:
        losses.append(model(make_batch(3, 5))["loss_masks"])
        losses[-1].backward()
    assert_close(losses[1], losses[0])
    for (name, one), other in zip(
        models[0].named_parameters(), models[1].parameters(), strict=True
    ):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            # Rounding turns single ReLUs on or off.
            difference = (other.grad.cpu() - one.grad).norm() / one.grad.norm().clamp(min=1e-12)
            assert difference < 0.01, name


def test_inference_agrees(models):
    image = torch.randint(0, 256, (3, 50, 70), generator=torch.Generator().manual_seed(0))
    outputs = []
    for model in models:
        model.eval().set_vocabulary(VOCABULARY)
        outputs.append(model([{"image": image, "height": 60, "width": 90}])[0]["sem_seg"])
    assert outputs[1].is_cuda
    assert_close(outputs[1], outputs[0])


def train(config, model, steps, **arguments):
    batches = [make_batch(4, 5, seed=step) for step in range(steps)]
    trainer = TrainingStep(model, batches, build_optimizer(config, model), **arguments)
    losses = []
    with EventStorage(0) as storage:
        for trainer.iter in range(steps):
            trainer.run_step()
            losses.append(storage.latest()["total_loss"][0])
    return losses


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_mixed_precision_follows_float32(tiny_config, precision, accumulation_steps):
    torch.manual_seed(0)
    model = PixelCLIP(tiny_config).cuda()
    expected = train(tiny_config, copy.deepcopy(model), 10)
    actual = train(
        tiny_config, model, 10, precision=precision, accumulation_steps=accumulation_steps
    )
    # Parts of a batch are clustered by themselves.
    assert actual == pytest.approx(expected, rel=0.01 if accumulation_steps == 1 else 0.1)
    assert all(p.isfinite().all() for p in model.parameters())


def test_trains_with_a_fused_optimizer(tiny_config):
    optimizer = build_optimizer(tiny_config, PixelCLIP(tiny_config).cuda())
    assert optimizer.defaults["fused"]


def test_compiled_model_agrees(tiny_config_of_each):
    torch.manual_seed(0)
    model = PixelCLIP(tiny_config_of_each).cuda().train()
    remove_stochastic_depth(model)
    tiny_config_of_each.MODEL.COMPILE = True
    compiled = PixelCLIP(tiny_config_of_each).cuda().train()
    remove_stochastic_depth(compiled)
    compiled.load_state_dict(model.state_dict())
    batch = make_batch(2, 5)
    losses = [m(batch)["loss_masks"] for m in (model, compiled)]
    assert_close(losses[1].detach(), losses[0].detach().cpu())
    losses[1].backward()
    assert all(p.grad is not None for p in compiled.parameters() if p.requires_grad)


def test_k_means_finds_the_same_clusters():
    features = torch.randn(3, 200, 12)
    on_cpu, on_gpu = (kmeans(values, 9, [1, 2, 3]) for values in (features, features.cuda()))
    assert torch.equal(on_gpu.assignment.cpu(), on_cpu.assignment)
    torch.testing.assert_close(on_gpu.centers.cpu(), on_cpu.centers)
