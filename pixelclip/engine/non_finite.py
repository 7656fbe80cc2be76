"""A training step whose loss or gradient is not finite: say where, and save the step.

The saved file repeats the step without the data set::

    step = torch.load("iteration_0000042_rank_0.pth", weights_only=True)
    model.train().load_state_dict(step["model"])
    model(step["batch"])
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import Tensor, nn

from pixelclip.utils.atomic_write import atomic_writer

FOLDER = "non_finite"

Batch = Sequence[dict[str, Any]]


class NonFiniteError(FloatingPointError):
    """The loss or the gradient of a step is infinite or NaN; the parameters are as before it.

    Attributes:
        batch: this process's images.
    """

    def __init__(self, message: str, batch: Batch) -> None:
        super().__init__(message)
        self.batch = batch


def save_non_finite_step(
    error: NonFiniteError, model: nn.Module, cfg: CfgNode, iteration: int, seed: int
) -> FloatingPointError:
    """Write the step to ``OUTPUT_DIR/non_finite`` and return the error that names it.

    Every process writes its own batch, the main process the weights too.

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
        "batch": [_loadable(sample) for sample in error.batch],
    }
    if comm.is_main_process():
        content["model"] = model.state_dict()
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with atomic_writer(path) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as problem:
        return FloatingPointError(f"{message} The step could not be saved: {problem}")
    return FloatingPointError(f"{message} The step is saved in {path}.")


def _loadable(sample: Mapping[str, Any]) -> dict[str, Any]:
    """What can be loaded with ``weights_only``."""
    kept = {k: v for k, v in sample.items() if isinstance(v, (str, int, float, Tensor))}
    return {k: v.cpu() if isinstance(v, Tensor) else v for k, v in kept.items()}
