"""A training step whose loss or gradient is no number: stop, say where, and keep the step.

The file that is kept holds the batch, the weights and the config, so that :func:`replay_bad_step`
can repeat the step on any machine, without the data set.
"""

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.utils import comm
from torch import Tensor, nn

from pixelclip.config import add_pixelclip_config
from pixelclip.engine.random_seeds import seed_iteration
from pixelclip.engine.solver import build_optimizer
from pixelclip.engine.training_step import BadNumbersError, Batch, TrainingStep
from pixelclip.meta_arch import PixelCLIP
from pixelclip.utils.atomic_write import atomic_writer

FOLDER = "bad_numbers"
_FILE_NAME = re.compile(r"(iteration_\d+)_rank_\d+\.pth$")


def explain_bad_step(
    error: BadNumbersError, model: nn.Module, cfg: CfgNode, iteration: int, seed: int
) -> FloatingPointError:
    """Write the step to ``OUTPUT_DIR/bad_numbers`` and return the error that names it.

    Every process calls it and writes its own batch, the main process the weights too.

    Args:
        error: what :class:`TrainingStep` raised, before the optimizer's step.
        model: as it was in the step.
        cfg: the training's config.
        iteration: counted from 1.
        seed: of the training.
    """
    names = ", ".join(str(sample.get("image_id", "?")) for sample in error.batch)
    message = f"Iteration {iteration}: {error}. Images of this process's batch: {names}."
    path = os.path.join(
        cfg.OUTPUT_DIR, FOLDER, f"iteration_{iteration:07d}_rank_{comm.get_rank()}.pth"
    )
    content = {
        "iteration": iteration,
        "seed": seed,
        "problem": str(error),
        "config": cfg.dump(),
        "batch": [_plain(sample) for sample in error.batch],
    }
    if comm.is_main_process():
        content["model"] = model.state_dict()
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with atomic_writer(path) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as problem:
        return FloatingPointError(f"{message} The step could not be kept: {problem}")
    return FloatingPointError(
        f"{message} The step is kept in {path}; python tools/replay_bad_step.py {path} repeats it."
    )


def _plain(sample: Mapping[str, Any]) -> dict[str, Any]:
    """What can be read again with ``weights_only``."""
    kept = {k: v for k, v in sample.items() if isinstance(v, (str, int, float, Tensor))}
    return {k: v.cpu() if isinstance(v, Tensor) else v for k, v in kept.items()}


@dataclass(frozen=True)
class ReplayedStep:
    """What a kept step gives when it is repeated.

    Attributes:
        iteration: counted from 1.
        problem: what the training said.
        losses: of the whole batch, of all processes together.
        bad_parameters: names of the parameters and buffers that are not finite before the step.
        bad_gradients: names of the parameters whose gradients are not finite.
        first_bad_module: the first one to return something that is not finite; "" for none.
        image_losses: the total loss of each image alone, by its name; NaN in one names the image.
    """

    iteration: int
    problem: str
    losses: dict[str, float]
    bad_parameters: list[str]
    bad_gradients: list[str]
    first_bad_module: str
    image_losses: dict[str, float]


def replay_bad_step(path: str) -> ReplayedStep:
    """Repeat a step that :func:`explain_bad_step` kept, in this process alone.

    The batches of several processes are joined, which gives the same masks the same clusters. The
    step is repeated on a GPU where there is one and it was made on one.

    Args:
        path: any of the step's files; those of the other processes are looked for beside it.

    Raises:
        ValueError: no such file, or the main process's, which holds the weights, is not beside it.
    """
    states = _load_states(path)
    cfg = _load_config(states[0]["config"])
    model = PixelCLIP(cfg).to(cfg.MODEL.DEVICE).train()
    model.load_state_dict(states[0]["model"])
    bad_parameters = _names_of_bad(model.state_dict())
    step = TrainingStep(
        model,
        (),
        build_optimizer(cfg, model),
        precision=cfg.SOLVER.AMP.PRECISION if cfg.SOLVER.AMP.ENABLED else None,
        accumulation_steps=cfg.SOLVER.ACCUMULATION_STEPS,
    )
    batch = _join([state["batch"] for state in states], cfg.SOLVER.ACCUMULATION_STEPS)
    with model.teacher.held(), _FirstBadModule(model) as watch:
        seed_iteration(states[0]["seed"], states[0]["iteration"] - 1, 0)
        losses = step.compute_gradients(batch)
        first_bad_module = watch.name
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        bad_gradients = _names_of_bad(gradients)
        image_losses = _losses_of_images(model, batch)
    return ReplayedStep(
        iteration=states[0]["iteration"],
        problem=states[0]["problem"],
        losses={name: loss.item() for name, loss in losses.items()},
        bad_parameters=bad_parameters,
        bad_gradients=bad_gradients,
        first_bad_module=first_bad_module,
        image_losses=image_losses,
    )


def _load_states(path: str) -> list[dict[str, Any]]:
    """The contents of the files of all processes, the main one's first."""
    match = _FILE_NAME.search(path)
    if not match or not os.path.isfile(path):
        raise ValueError(f"{path!r} is no file iteration_*_rank_*.pth of a folder {FOLDER}")
    others = glob.glob(os.path.join(glob.escape(os.path.dirname(path)), f"{match[1]}_rank_*.pth"))
    by_rank = sorted(others, key=lambda name: int(name.rsplit("_", 1)[1].removesuffix(".pth")))
    states = [torch.load(name, map_location="cpu", weights_only=True) for name in by_rank]
    if "model" not in states[0]:
        raise ValueError(f"{match[1]}_rank_0.pth, which holds the weights, is not beside {path}")
    return states


def _load_config(text: str) -> CfgNode:
    cfg = get_cfg()
    add_pixelclip_config(cfg)
    cfg.merge_from_other_cfg(CfgNode.load_cfg(text))
    cfg.MODEL.CLIP.PRETRAINED = ""  # the weights come from the file
    if not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    return cfg


def _join(batches: Sequence[Batch], num_parts: int) -> list[dict[str, Any]]:
    """One batch whose parts hold what the processes had in the same part."""
    size = len(batches[0]) // num_parts
    return [
        sample
        for start in range(0, size * num_parts, size)
        for batch in batches
        for sample in batch[start : start + size]
    ]


def _names_of_bad(tensors: Mapping[str, Tensor]) -> list[str]:
    return [name for name, tensor in tensors.items() if not tensor.isfinite().all()]


@torch.no_grad()
def _losses_of_images(model: PixelCLIP, batch: Batch) -> dict[str, float]:
    names = [str(sample.get("image_id", number)) for number, sample in enumerate(batch)]
    return {
        name: sum(loss.item() for loss in model([sample]).values())
        for name, sample in zip(names, batch, strict=True)
    }


class _FirstBadModule:
    """Within it, ``name`` becomes that of the first module whose output is not finite."""

    def __init__(self, model: nn.Module) -> None:
        self.name = ""
        self._handles: list[Any] = []
        self._model = model

    def __enter__(self) -> "_FirstBadModule":
        for name, module in self._model.named_modules():
            self._handles.append(module.register_forward_hook(self._make_hook(name)))
        return self

    def _make_hook(self, name: str) -> Any:
        def look(_module: nn.Module, _inputs: Any, output: Any) -> None:
            tensors = output if isinstance(output, (tuple, list)) else [output]
            if not self.name and any(
                isinstance(t, Tensor) and t.is_floating_point() and not t.isfinite().all()
                for t in tensors
            ):
                self.name = name or type(self._model).__name__

        return look

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
