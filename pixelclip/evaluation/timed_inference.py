"""Run a model over a data set, with a progress bar and a clock."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.evaluation import DatasetEvaluator, inference_context
from detectron2.utils import comm
from torch import nn
from tqdm import tqdm

# The first batches wait for loader processes, memory allocation and the choice of kernels.
WARM_UP_BATCHES = 5


@dataclass(frozen=True)
class Speed:
    """How fast images were read, segmented and compared with their labels.

    Attributes:
        images_per_second: over all processes; None where everything was warm-up.
        images: how many images were timed.
        processes: how many processes shared them.
    """

    images_per_second: float | None
    images: int
    processes: int


def run_timed_inference(
    model: nn.Module | Callable[[Any], Any],
    loader: Any,
    evaluator: DatasetEvaluator,
    description: str,
) -> tuple[dict[str, Any], Speed]:
    """Evaluate as Detectron2's ``inference_on_dataset`` does; measure the speed after a warm-up.

    The warm-up is five batches, or half of the batches where there are fewer than ten.

    Args:
        model: takes a batch of ``loader`` and returns what ``evaluator`` processes.
        loader: an iterable of lists, with a length; every process has its own share.
        evaluator: gathers over the processes on its own.
        description: what stands before the main process's progress bar.

    Returns:
        The evaluator's metrics (none on other processes than the main one) and the speed.
    """
    evaluator.reset()
    warm_up = min(WARM_UP_BATCHES, (len(loader) + 1) // 2)
    progress = tqdm(loader, description, unit="batch", disable=not comm.is_main_process())
    images, start = 0, time.perf_counter()
    with inference_context(model), torch.no_grad():
        for done, inputs in enumerate(progress, start=1):
            evaluator.process(inputs, model(inputs))
            if done > warm_up:
                images += len(inputs)
            elif done == warm_up:
                _wait_for_gpu()
                start = time.perf_counter()
    _wait_for_gpu()
    measured = comm.all_gather((images, time.perf_counter() - start))
    total = sum(count for count, _ in measured)
    seconds = max((duration for count, duration in measured if count), default=0.0)
    speed = Speed(total / seconds if total else None, total, len(measured))
    return evaluator.evaluate() or {}, speed


def _wait_for_gpu() -> None:
    """Let what the GPU still has to do be in the measured time."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
