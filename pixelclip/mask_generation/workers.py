"""Spread work over processes, each with its own device."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

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
    """Results of all tasks, in their order; what a task raises is passed on.

    Args:
        work: does a task on a device. It, tasks and results must be picklable.
        devices: one for each process. With a single one, this process does the work.

    Raises:
        RuntimeError: a process was killed, as a system does that runs out of memory.
    """
    if len(devices) == 1:
        yield from (work(task, devices[0]) for task in tasks)
        return
    # A loader's processes end with their parent; tasks take the place of indices. They are spawned,
    # as a fork of a process with threads or CUDA may hang.
    loader = DataLoader(
        _Worker(work, devices), batch_size=None, sampler=tasks, collate_fn=tuple,
        num_workers=len(devices), multiprocessing_context="spawn",
        prefetch_factor=4,  # all of a million tasks at once would fill the memory
    )  # fmt: skip
    try:
        for result, error in loader:
            if error is not None:
                raise error
            yield result
    except RuntimeError as error:
        if "exited unexpectedly" not in str(error):
            raise
        raise RuntimeError(
            "A worker process was killed, perhaps because memory ran out: start the same command "
            "again with fewer workers; what is finished stays."
        ) from error


class _Worker(Dataset[Any]):
    """Does a task when it is asked for as an item."""

    def __init__(self, work: Work, devices: Sequence[torch.device]) -> None:
        self._work, self._devices = work, devices

    def __getitem__(self, task: Any) -> tuple[Any, Exception | None]:
        worker: Any = get_worker_info()
        try:
            return self._work(task, self._devices[worker.id]), None
        except Exception as error:  # returned, as the loader would put a traceback into its text
            return None, error
