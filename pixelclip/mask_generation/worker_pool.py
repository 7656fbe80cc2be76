"""Spread work over processes of which each prepares itself once, on a device of its own."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.queues import SimpleQueue
from typing import Any, TypeVar

import torch

Task = TypeVar("Task")
Result = TypeVar("Result")

# So many tasks wait for each process; all of a million at once would fill the memory.
_WAITING_PER_PROCESS = 4

# What a worker process made of itself.
_work: Callable[[Any], Any] | None = None


def run_tasks(
    prepare: Callable[[torch.device], Callable[[Task], Result]],
    tasks: Iterable[Task],
    devices: Sequence[torch.device],
) -> Iterator[Result]:
    """Results of all tasks, as they get ready.

    Args:
        prepare: called once in each process with its device; returns what does a task. It, tasks
            and results must be picklable.
        tasks: what to do.
        devices: one for each process. With a single one, this process does the work.

    Raises:
        RuntimeError: a process was killed, as a system does that runs out of memory. What else a
            task raises is passed on.
    """
    if len(devices) == 1:
        yield from map(prepare(devices[0]), tasks)
        return
    # Started anew rather than forked: a fork of a process with threads or CUDA may hang.
    context = multiprocessing.get_context("spawn")
    free_devices = context.SimpleQueue()
    for device in devices:
        free_devices.put(device)
    threads = max(1, (os.cpu_count() or 1) // len(devices))
    arguments = (prepare, free_devices, threads)
    with ProcessPoolExecutor(len(devices), context, _start, arguments) as pool:
        try:
            yield from _submit_all(pool, iter(tasks), _WAITING_PER_PROCESS * len(devices))
        except BrokenProcessPool as error:
            raise RuntimeError(
                "A worker process was killed, perhaps because memory ran out: start the same "
                "command again with fewer workers; what is finished stays."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _submit_all(pool: ProcessPoolExecutor, tasks: Iterator[Any], limit: int) -> Iterator[Any]:
    waiting: set[Future[Any]] = {pool.submit(_do, task) for task in islice(tasks, limit)}
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        waiting |= {pool.submit(_do, task) for task in islice(tasks, len(done))}
        for future in done:
            yield future.result()


def _start(
    prepare: Callable[[torch.device], Any], free_devices: "SimpleQueue[Any]", threads: int
) -> None:
    """What a worker process does first."""
    global _work
    # Control-C reaches all processes of a terminal; the parent says what becomes of the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _work = prepare(free_devices.get())


def _end_with_parent() -> None:
    """Otherwise a worker would wait forever for tasks of a process that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _do(task: Any) -> Any:
    assert _work is not None
    return _work(task)
