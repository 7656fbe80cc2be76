import math

import pytest
import torch
from torch import nn

from pixelclip.engine.solver import build_lr_scheduler, build_optimizer


def learning_rates(cfg, model, steps):
    optimizer = build_optimizer(cfg, model)
    scheduler = build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"] / optimizer.param_groups[0]["initial_lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.fixture
def config(tiny_config):
    tiny_config.SOLVER.LR_SCHEDULER_NAME = "WarmupCosineLR"
    tiny_config.SOLVER.WARMUP_ITERS = 0
    tiny_config.SOLVER.MAX_ITER = 20
    tiny_config.SOLVER.BASE_LR = 2e-4
    tiny_config.SOLVER.BASE_LR_END = 1e-4
    tiny_config.SOLVER.WEIGHT_DECAY = 1e-4
    return tiny_config


def test_multipliers_and_weight_decay(config, tiny_model):
    tiny_model.image_encoder.requires_grad_(True)
    groups = build_optimizer(config, tiny_model).param_groups
    settings = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    expected = {
        "image_encoder.visual.proj": (2e-6, 1e-4),
        "image_encoder.visual.ln_post.weight": (2e-6, 0.0),
        "image_encoder.visual.transformer.resblocks.0.attn.in_proj_bias": (2e-6, 1e-4),
        "class_prompts.tokens": (2e-3, 1e-4),
        "mask_decoder.conv1.0.weight": (2e-4, 1e-4),
        "mask_decoder.conv1.1.weight": (2e-4, 0.0),
    }
    parameters = dict(tiny_model.named_parameters())
    for name, setting in expected.items():
        assert settings[id(parameters[name])] == pytest.approx(setting)
    trainable = {id(p) for p in parameters.values() if p.requires_grad}
    assert set(settings) == trainable


def test_embeddings_do_not_decay(config):
    groups = build_optimizer(config, nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2)))
    assert sorted(g["weight_decay"] for g in groups.param_groups) == [0.0, 1e-4]


def test_the_whole_gradient_is_clipped_at_the_step(config):
    config.SOLVER.CLIP_GRADIENTS.ENABLED = True
    config.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"
    config.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.01
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = build_optimizer(config, model)
    (1000 * model(torch.ones(1, 3)).sum()).backward()
    directions = [p.grad / torch.linalg.vector_norm(p.grad) for p in model.parameters()]
    optimizer.step()
    norms = [torch.linalg.vector_norm(p.grad) for p in model.parameters()]
    assert torch.linalg.vector_norm(torch.stack(norms)).item() == pytest.approx(0.01, rel=1e-4)
    for parameter, direction, norm in zip(model.parameters(), directions, norms, strict=True):
        torch.testing.assert_close(parameter.grad / norm, direction)


def test_the_gradient_is_clipped_before_the_step(config, monkeypatch):
    config.SOLVER.CLIP_GRADIENTS.ENABLED = True
    config.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"
    config.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.01
    config.SOLVER.WEIGHT_DECAY, config.SOLVER.BASE_LR = 0.0, 0.5
    # Unlike AdamW's, an update of SGD is proportional to the gradient.
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, lr, **_: torch.optim.SGD(groups, lr))
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
    optimizer = build_optimizer(config, model)
    for scale in (1000, 1e-5):  # the gradient norm is above the limit, then below it
        optimizer.zero_grad()
        (scale * model(torch.ones(1, 3).double()).sum()).backward()
        gradient = nn.utils.parameters_to_vector(p.grad for p in model.parameters())
        before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        optimizer.step()
        update = nn.utils.parameters_to_vector(model.parameters()).detach() - before
        norm = min(0.01, gradient.norm().item())
        torch.testing.assert_close(update, -0.5 * norm * gradient / gradient.norm())


@pytest.mark.parametrize(
    ("device", "version", "fused"),
    [
        ("cpu", "2.3.1+cpu", False),
        ("cpu", "2.4.0", True),
        ("cpu", "2.12.1+cu130", True),
        ("meta", "2.12.1", False),
    ],
)
def test_adamw_is_fused_where_torch_can(config, monkeypatch, device, version, fused):
    monkeypatch.setattr(torch, "__version__", version)
    model = nn.Linear(3, 2, device=device)
    optimizer = build_optimizer(config, model)
    assert [bool(group["fused"]) for group in optimizer.param_groups] == [fused]
    model(torch.ones(1, 3, device=device)).sum().backward()
    optimizer.step()  # where a device has no fused kernel, torch says so only here


def test_other_clipping_is_refused(config, tiny_model):
    config.SOLVER.CLIP_GRADIENTS.ENABLED = True
    with pytest.raises(ValueError, match="'full_model'"):
        build_optimizer(config, tiny_model)


def test_cosine_ends_at_its_end(config, tiny_model):
    expected = [0.75 + 0.25 * math.cos(math.pi * i / 20) for i in range(21)]
    assert learning_rates(config, tiny_model, 21) == pytest.approx(expected)


@pytest.mark.parametrize(("method", "start"), [("linear", 0.1), ("constant", 0.1)])
def test_warm_up_joins_the_cosine(config, tiny_model, method, start):
    config.SOLVER.WARMUP_ITERS, config.SOLVER.WARMUP_FACTOR = 5, 0.1
    config.SOLVER.WARMUP_METHOD = method
    rates = learning_rates(config, tiny_model, 20)
    joined = 0.75 + 0.25 * math.cos(math.pi * 5 / 20)
    middle = start if method == "constant" else start + 2 / 5 * (joined - start)
    assert rates[0] == pytest.approx(start)
    assert rates[2] == pytest.approx(middle)
    assert rates[5:] == pytest.approx(
        [0.75 + 0.25 * math.cos(math.pi * i / 20) for i in range(5, 20)]
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [("LR_SCHEDULER_NAME", "WarmupMultiStepLR"), ("WARMUP_METHOD", "exponential")],
)
def test_unknown_schedules_are_refused(config, tiny_model, key, value):
    config.SOLVER.WARMUP_ITERS = 5
    config.SOLVER[key] = value
    with pytest.raises(ValueError, match=f"{key}.*{value}"):
        build_lr_scheduler(config, build_optimizer(config, tiny_model))


def test_nothing_to_train_is_refused(config, tiny_model):
    with pytest.raises(ValueError, match="No parameter"):
        build_optimizer(config, tiny_model.requires_grad_(False))


def test_a_trainer_that_scales_the_gradient_clips_the_unscaled_one(tiny_config):
    """As Detectron2's AMPTrainer does: the fused optimizer unscales after our clipping."""
    enabled = ("ENABLED", True, "CLIP_TYPE", "full_model", "CLIP_VALUE", 1e-3)
    tiny_config.SOLVER.CLIP_GRADIENTS.merge_from_list(list(enabled))

    def stepped_weights(scale):
        parameter = torch.nn.Parameter(torch.ones(3))
        model = torch.nn.ParameterDict({"weight": parameter})
        optimizer = build_optimizer(tiny_config, model)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        scaler.scale((parameter * torch.tensor([1e-3, 1.0, -2.0])).sum()).backward()
        scaler.step(optimizer)
        return parameter.detach(), optimizer.state[parameter]["exp_avg"]

    for once, scaled in zip(stepped_weights(1.0), stepped_weights(1024.0), strict=True):
        torch.testing.assert_close(scaled, once)
