"""Spread work over processes, each with its own device."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import get_worker_info

from pixelclip.utils import workers

Work = Callable[[Any, torch.device], Any]


def choose_devices(has_network: bool, num_workers: int | None) -> list[torch.device]:
    """The device of each worker process: the GPUs in turn for a network, or the CPU.

    By default there is one process for each GPU, or one for a network on the CPU, which uses all
    cores, or else one for each core.

    Raises:
        ValueError: fewer than one worker.
    """
    if num_workers is not None and num_workers < 1:
        raise ValueError(f"{num_workers} workers were asked for; expected at least 1.")
    gpus = torch.cuda.device_count() if has_network else 0
    if gpus:
        return [torch.device("cuda", index % gpus) for index in range(num_workers or gpus)]
    default = 1 if has_network else os.cpu_count() or 1
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
