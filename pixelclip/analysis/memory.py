"""How much memory a training step takes: counted for small batches, extrapolated to larger ones.

What lives at the same time is proportional to the number of images, but for parameters, optimizer
state and what the class prompts need. Counting two small batches gives both parts, with whatever
options a config has: number format, activation checkpointing, which layers train.
"""

import gc
import json
import math
import tempfile
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pixelclip.analysis.speed_workloads import train_workload
from pixelclip.modeling.losses import MAPS_AT_A_TIME

# Does what comes before a step, and returns the step.
Prepare = Callable[[], Callable[[], object]]


class MemoryModel(NamedTuple):
    """Bytes on a device, of a process: ``fixed``, and ``per_image`` of a part of its batch."""

    fixed: float
    per_image: float

    def peak(self, images: int) -> float:
        """Most bytes at a time, with so many images in one pass through the model."""
        return self.fixed + images * self.per_image

    def largest_batch(self, available: float) -> int:
        """How many images fit into so many bytes; 0 where not even one does."""
        return max(0, int((available - self.fixed) // self.per_image))


def fit_memory_model(cfg: CfgNode, images: Path, folder: Path) -> MemoryModel:
    """Count the bytes of training steps with two batch sizes.

    Args:
        cfg: of the training; its batch size does not matter.
        images, folder: see ``WORKLOADS``.
    """
    device = torch.device(cfg.MODEL.DEVICE)
    # With two full chunks of the decoder's maps: of more, no more than two live at a time.
    first = math.ceil(2 * MAPS_AT_A_TIME[device.type] / cfg.MODEL.PIXELCLIP.NUM_CLUSTERS)
    second = first + max(1, first // 2)
    small, large = (
        count_peak_bytes(device, partial(prepare_step, cfg, size, images, folder))
        for size in (first, second)
    )
    per_image = (large - small) / (second - first)
    return MemoryModel(small - first * per_image, per_image)


def prepare_step(cfg: CfgNode, batch_size: int, images: Path, folder: Path) -> Callable[[], object]:
    """Build a model and take a step, after which the optimizer has its state; return the next."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SOLVER.IMS_PER_BATCH = batch_size
    workload = train_workload(cfg, images, folder)
    workload.step()
    return workload.step


def count_peak_bytes(device: torch.device, prepare: Prepare) -> int:
    """Most bytes of tensors on a device that live at a time in a step and its preparation."""
    gc.collect()
    counter = _LiveBytes(device)
    with counter:
        prepare()()
    return counter.peak


class _LiveBytes(TorchDispatchMode):
    """Sees every operation, and counts the memory of its results until it is freed."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.peak = 0
        self._device_type = device.type
        self._live = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        for result in tree_leaves(output):
            if isinstance(result, Tensor) and result.device.type == self._device_type:
                self._add(result.untyped_storage())
        return output

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        size = storage.nbytes()
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._live -= size


def measure_peak_bytes(device: torch.device, prepare: Prepare) -> int:
    """Most bytes that torch's allocator has given out at a time in a step and its preparation.

    On a GPU, in the step alone: before, cuDNN tries algorithms that need any amount of memory.
    """
    gc.collect()  # what is freed inside would count
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        step = prepare()
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            prepare()()
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    changes = [event["args"] for event in events if event.get("name") == "[memory]"]
    before = changes[0]["Total Allocated"] - changes[0]["Bytes"]
    return max(change["Total Allocated"] for change in changes) - before
