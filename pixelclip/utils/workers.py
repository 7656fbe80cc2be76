"""Spread work over processes."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

Work = Callable[[Any], Any]


def run_tasks(work: Work, tasks: Iterable[Any], num_workers: int) -> Iterator[Any]:
    """Results of all tasks, in their order; what a task raises is passed on.

    Args:
        work: does a task. It, tasks and results must be picklable.
        tasks: they are taken as they are needed, a few for each process ahead.
        num_workers: how many processes. If it is one, this process does the work.

    Raises:
        RuntimeError: a process was killed, as a system does that runs out of memory.
    """
    if num_workers == 1:
        yield from map(work, tasks)
        return
    # A loader's processes end with their parent; tasks take the place of indices. They are spawned,
    # as a fork of a process with threads or CUDA may hang.
    loader = DataLoader(
        _Worker(work), batch_size=None, sampler=tasks, collate_fn=tuple,
        num_workers=num_workers, multiprocessing_context="spawn",
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

    def __init__(self, work: Work) -> None:
        self._work = work

    def __getitem__(self, task: Any) -> tuple[Any, Exception | None]:
        try:
            return self._work(task), None
        except Exception as error:  # returned, as the loader would put a traceback into its text
            return None, error
