"""Optimizer and learning-rate schedule, the same with every Detectron2 version."""

from collections import defaultdict
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier
from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    CosineParamScheduler,
    LinearParamScheduler,
    ParamScheduler,
)
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.torch_version import TorchVersion

# The first torch version whose AdamW has a fused kernel for a device type.
_FUSED_ADAMW_SINCE = {"cuda": "2.0", "cpu": "2.4"}
_NORM_LAYERS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase, nn.LocalResponseNorm)


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of a PixelCLIP model.

    The image encoder learns at ``SOLVER.CLIP_MULTIPLIER`` and the class prompts at
    ``SOLVER.PROMPT_MULTIPLIER`` times ``SOLVER.BASE_LR``; norm layers and embeddings have
    ``SOLVER.WEIGHT_DECAY_NORM`` and no weight decay. With ``SOLVER.CLIP_GRADIENTS.ENABLED`` the
    gradient norm of the whole model is clipped at ``CLIP_VALUE`` before each step.

    Raises:
        ValueError: nothing trains, or ``SOLVER.CLIP_GRADIENTS.CLIP_TYPE`` is not "full_model".
    """
    groups = _parameter_groups(cfg, model)
    if not groups:
        raise ValueError("No parameter of the model trains: check MODEL.CLIP.FINETUNE.")
    optimizer = _build_adamw(groups, cfg.SOLVER.BASE_LR)
    if cfg.SOLVER.CLIP_GRADIENTS.ENABLED:
        _clip_whole_gradient(optimizer, cfg.SOLVER.CLIP_GRADIENTS)
    return optimizer


def _build_adamw(groups: list[dict[str, Any]], lr: float) -> torch.optim.AdamW:
    """AdamW, in one fused kernel where torch has one for the device."""
    # Chosen before construction: torch raises for an unsupported device only at the first step.
    device_types = {p.device.type for group in groups for p in group["params"]}
    return torch.optim.AdamW(groups, lr=lr, fused=all(map(_has_fused_adamw, device_types)))


def _has_fused_adamw(device_type: str) -> bool:
    since = _FUSED_ADAMW_SINCE.get(device_type)
    return since is not None and TorchVersion(torch.__version__) >= since


def _parameter_groups(cfg: CfgNode, model: nn.Module) -> list[dict[str, Any]]:
    multipliers = {
        "image_encoder": cfg.SOLVER.CLIP_MULTIPLIER,
        "class_prompts": cfg.SOLVER.PROMPT_MULTIPLIER,
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for module_name, module in model.named_modules():
        multiplier = multipliers.get(module_name.split(".")[0], 1.0)
        key = (cfg.SOLVER.BASE_LR * multiplier, _weight_decay(cfg, module))
        parameters = [p for p in module.parameters(recurse=False) if p.requires_grad]
        if parameters:
            groups[key] += parameters
    return [
        {"params": parameters, "lr": lr, "weight_decay": decay}
        for (lr, decay), parameters in groups.items()
    ]


def _weight_decay(cfg: CfgNode, module: nn.Module) -> float:
    if isinstance(module, nn.Embedding):
        return 0.0
    if isinstance(module, _NORM_LAYERS):
        return cfg.SOLVER.WEIGHT_DECAY_NORM
    return cfg.SOLVER.WEIGHT_DECAY


def _clip_whole_gradient(optimizer: torch.optim.Optimizer, node: CfgNode) -> None:
    if node.CLIP_TYPE != "full_model":
        raise ValueError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE is {node.CLIP_TYPE!r}; PixelCLIP clips the norm of "
            "the whole model's gradient: use 'full_model', or set ENABLED to False."
        )
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def clip(*_: Any) -> None:
        # Under AMP the gradients are unscaled before, or by a fused optimizer's step afterwards:
        # a GradScaler then gives that the scale.
        scale = getattr(optimizer, "grad_scale", None)
        limit = node.CLIP_VALUE * (1.0 if scale is None else float(scale))
        clip_grad_norm_(parameters, limit, norm_type=node.NORM_TYPE)

    optimizer.register_step_pre_hook(clip)


def build_lr_scheduler(
    cfg: CfgNode, optimizer: torch.optim.Optimizer
) -> torch.optim.lr_scheduler.LRScheduler:
    """Cosine from ``SOLVER.BASE_LR`` to ``SOLVER.BASE_LR_END`` over ``MAX_ITER``, after a warm-up.

    Put together from fvcore's schedules, because Detectron2's own cosine ends at 0 in version 0.5.

    Raises:
        ValueError: ``SOLVER.LR_SCHEDULER_NAME`` is not "WarmupCosineLR", ``WARMUP_METHOD`` is
            unknown, or ``BASE_LR_END`` is above ``BASE_LR``.
    """
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME != "WarmupCosineLR":
        raise ValueError(
            f"SOLVER.LR_SCHEDULER_NAME is {solver.LR_SCHEDULER_NAME!r}; expected 'WarmupCosineLR'."
        )
    if solver.BASE_LR_END > solver.BASE_LR:
        raise ValueError(
            f"SOLVER.BASE_LR_END, {solver.BASE_LR_END}, is above SOLVER.BASE_LR, {solver.BASE_LR}: "
            "the learning rate would rise. Set both."
        )
    schedule: ParamScheduler = CosineParamScheduler(1.0, solver.BASE_LR_END / solver.BASE_LR)
    if solver.WARMUP_ITERS > 0:
        schedule = _prepend_warmup(solver, schedule)
    return LRMultiplier(optimizer, multiplier=schedule, max_iter=solver.MAX_ITER)


def _prepend_warmup(solver: CfgNode, schedule: ParamScheduler) -> ParamScheduler:
    length = min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0)
    start = solver.WARMUP_FACTOR * schedule(0.0)
    if solver.WARMUP_METHOD == "linear":
        warmup: ParamScheduler = LinearParamScheduler(start, schedule(length))
    elif solver.WARMUP_METHOD == "constant":
        warmup = ConstantParamScheduler(start)
    else:
        raise ValueError(
            f"SOLVER.WARMUP_METHOD is {solver.WARMUP_METHOD!r}; expected 'linear' or 'constant'."
        )
    return CompositeParamScheduler(
        [warmup, schedule], lengths=[length, 1 - length], interval_scaling=["rescaled", "fixed"]
    )
