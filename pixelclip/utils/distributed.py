"""What the processes of a distributed run tell each other, apart from gradients."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import Tensor

Result = TypeVar("Result")


class GatheredRows(NamedTuple):
    """What all processes have contributed.

    Attributes:
        rows: (all rows, k), process after process.
        own: which of the rows are this process's.
        total: scalar int64, sum of the processes' counts.
    """

    rows: Tensor
    own: slice
    total: Tensor


@torch.no_grad()
def all_gather_uneven(rows: Tensor, count: Tensor) -> GatheredRows:
    """Give every process the rows (such as masks' logits) of all of them. No gradient flows.

    Every process must call it; the number of rows may differ, and be zero.

    Args:
        rows: (n, k) of this process; k is the same everywhere.
        count: scalar int64.
    """
    if comm.get_world_size() == 1:
        return GatheredRows(rows, slice(0, len(rows)), count)
    # The hosts tell each other the lengths, so that they need not wait for their GPUs.
    length = torch.tensor(len(rows))
    lengths = [int(one) for one in _all_gather(length, comm._get_global_gloo_group())]
    padded = rows.new_zeros((max(1, *lengths), rows.shape[1]))  # not every backend sends nothing
    padded[: len(rows)] = rows
    parts = [part[:n] for part, n in zip(_all_gather(padded), lengths, strict=True)]
    first, total = sum(lengths[: comm.get_rank()]), torch.stack(_all_gather(count)).sum()
    return GatheredRows(torch.cat(parts), slice(first, first + len(rows)), total)


@torch.no_grad()
def all_gather_equal(tensor: Tensor) -> Tensor:
    """The tensors (...) of all processes, of equal shapes, as (processes, ...)."""
    return torch.stack(_all_gather(tensor)) if comm.get_world_size() > 1 else tensor[None]


def _all_gather(tensor: Tensor, group: Any = None) -> list[Tensor]:
    gathered = [torch.empty_like(tensor) for _ in range(comm.get_world_size())]
    torch.distributed.all_gather(gathered, tensor, group)
    return gathered


def run_on_all_ranks(make: Callable[[], Result]) -> Result:
    """Do the same in every process, and fail in all of them where it fails in one.

    Otherwise the others would wait in their next collective for a process that is gone.

    Raises:
        RuntimeError: it failed in another process; names its rank and its error.
        Exception: it failed in this one.
    """
    problem: Exception | None = None
    try:
        result = make()
    except Exception as error:
        problem = error
    texts = comm.all_gather("" if problem is None else f"{type(problem).__name__}: {problem}")
    if problem is not None:
        raise problem
    failed = [f"rank {rank} failed with {text}" for rank, text in enumerate(texts) if text]
    if failed:
        raise RuntimeError("; ".join(failed))
    return result


def limit_gloo_group(limit: timedelta) -> None:
    """Let collectives of Detectron2's ``comm`` wait as long as those of the default group.

    Next to NCCL, ``comm`` creates a gloo group with torch's own limit, 30 minutes.
    """
    if torch.distributed.get_backend() == "nccl":
        group = torch.distributed.new_group(backend="gloo", timeout=limit)
        comm._get_global_gloo_group = lambda: group


class StepBarrier:
    """Waits until all processes have come to a step; does nothing for a single one.

    Args:
        time_limit: seconds to wait.
    """

    def __init__(self, time_limit: float) -> None:
        self._time_limit = timedelta(seconds=time_limit)
        self._is_needed = comm.get_world_size() > 1
        if self._is_needed:
            # NCCL has no barrier that knows who is missing.
            self._group = torch.distributed.new_group(backend="gloo", timeout=self._time_limit)

    def wait(self, iteration: int) -> None:
        """Wait for the others.

        Args:
            iteration: of the step, from 1.

        Raises:
            RuntimeError: a process is gone, or did not come within the limit. Rank 0 names those
                that did not come in time, the others name rank 0.
        """
        if not self._is_needed:
            return
        try:
            # Rank 0 gives up a little before the others, who know less.
            torch.distributed.monitored_barrier(
                self._group, 0.9 * self._time_limit, wait_all_ranks=True
            )
        except RuntimeError as error:
            reason = " ".join(str(error).split())  # in one line
            raise RuntimeError(
                f"Rank {comm.get_rank()} waited for the others to load iteration {iteration}, and "
                "one of them ended or took too long (SOLVER.STEP_TIME_LIMIT is "
                f"{self._time_limit.total_seconds():g} s): {reason}. Look for the first error in "
                "the output of that rank, then start again with --resume."
            ) from error


def check_same(what: str, value: Any) -> None:
    """Refuse to continue where the processes differ.

    Raises:
        RuntimeError: in every process; names the value of each rank.
    """
    _refuse_different(what, comm.all_gather(value))


def _refuse_different(what: str, values: list[Any]) -> None:
    if any(other != values[0] for other in values):
        listed = ", ".join(f"rank {rank}: {other}" for rank, other in enumerate(values))
        raise RuntimeError(f"The processes differ in the {what}: {listed}.")


def check_same_config(cfg: CfgNode) -> None:
    """Refuse to continue with different configs of the processes, but for where they write.

    Raises:
        RuntimeError: in every process; names the keys and the values of each rank.
    """
    configs = comm.all_gather(_leaves(cfg))
    for key in configs[0]:
        if key != "OUTPUT_DIR":
            _refuse_different(key, [config.get(key) for config in configs])


def _leaves(node: CfgNode, prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        name = f"{prefix}{key}"
        leaves.update(_leaves(value, f"{name}.") if isinstance(value, CfgNode) else {name: value})
    return leaves
