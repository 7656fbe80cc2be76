"""Spread work over processes, each with its own device."""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import get_worker_info

from pixelclip.utils import workers
from pixelclip.utils.shards import WHOLE, Shard

Work = Callable[[Any, torch.device], Any]


def choose_devices(
    has_network: bool, num_workers: int | None, shard: Shard = WHOLE
) -> list[torch.device]:
    """The device of each worker process: the GPUs in turn for a network, or the CPU.

    By default there is one process for each GPU, or one for a network on the CPU, which uses all
    cores, or else one for each core. Shards on one machine divide its GPUs and cores.

    Raises:
        ValueError: fewer than one worker.
    """
    if num_workers is not None and num_workers < 1:
        raise ValueError(f"{num_workers} workers were asked for; expected at least 1.")
    if has_network and (count := torch.cuda.device_count()):
        gpus = shard.local_gpus(count)
        used = itertools.islice(itertools.cycle(gpus), num_workers or len(gpus))
        return [torch.device("cuda", index) for index in used]
    default = 1 if has_network else max(1, (os.cpu_count() or 1) // shard.local_count)
    return [torch.device("cpu")] * (num_workers or default)


def run_tasks(work: Work, tasks: Iterable[Any], devices: Sequence[torch.device]) -> Iterator[Any]:
    """As :func:`pixelclip.utils.workers.run_tasks`, with one process for each device."""
    return workers.run_tasks(_OnDevice(work, devices), tasks, len(devices))


class _OnDevice:
    """Does a task on the device of the process that it runs in."""

    def __init__(self, work: Work, devices: Sequence[torch.device]) -> None:
        self._work, self._devices = work, devices

    def __call__(self, task: Any) -> Any:
        worker = get_worker_info()
        return self._work(task, self._devices[worker.id if worker else 0])
