"""What the processes of a distributed run tell each other, beside gradients."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import Tensor

Result = TypeVar("Result")

# A packet begins with two int64 in the place of four float32.
_HEADER = 4


class SharedRows(NamedTuple):
    """What all processes have contributed.

    Attributes:
        rows: (all rows, k) float32, process after process.
        own: which of the rows are this process's.
        total: scalar int64, sum of the processes' counts.
    """

    rows: Tensor
    own: slice
    total: Tensor


class RowExchange:
    """Gives every process the rows of all of them, in one collective.

    The number of rows differs from process to process. Packets of equal size hold as many rows as
    any process has had so far; only when one has more is the exchange repeated, with larger ones.
    """

    def __init__(self) -> None:
        self._capacity = 64

    @torch.no_grad()
    def __call__(self, rows: Tensor, count: Tensor) -> SharedRows:
        """Exchange rows and a count. No gradient flows through it.

        Every process must call it, also one without rows.

        Args:
            rows: (n, k) float32 of this process; n may be zero, k is the same everywhere.
            count: scalar int64.
        """
        if comm.get_world_size() == 1:
            return SharedRows(rows, slice(0, len(rows)), count)
        packets, numbers = self._exchange(rows, count)
        while max(numbers) > self._capacity:
            self._capacity = -(-max(numbers) // 64) * 64
            packets, numbers = self._exchange(rows, count)
        contents = packets[:, _HEADER:].unflatten(1, (self._capacity, rows.shape[1]))
        gathered = [content[:n] for content, n in zip(contents, numbers, strict=True)]
        first = sum(numbers[: comm.get_rank()])
        counts = _headers(packets)[:, 1]  # (processes,)
        return SharedRows(torch.cat(gathered), slice(first, first + len(rows)), counts.sum())

    def _exchange(self, rows: Tensor, count: Tensor) -> tuple[Tensor, list[int]]:
        """Packets (processes, size) of all processes, and how many rows each process has."""
        number, width = rows.shape
        packet = rows.new_zeros(_HEADER + self._capacity * width, dtype=torch.float32)
        packet[:_HEADER].view(torch.int64)[0] = number
        packet[:_HEADER].view(torch.int64)[1] = count
        sent = rows[: self._capacity].flatten()
        packet[_HEADER : _HEADER + len(sent)] = sent
        packets = packet.new_empty((comm.get_world_size(), len(packet)))
        torch.distributed.all_gather(list(packets.unbind()), packet)
        return packets, _headers(packets)[:, 0].tolist()


def _headers(packets: Tensor) -> Tensor:
    """Number of rows and count of each process, (processes, 2) int64."""
    return packets[:, :_HEADER].contiguous().view(torch.int64)


def do_together(make: Callable[[], Result]) -> Result:
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
    """Refuse to go on where the processes differ.

    Raises:
        RuntimeError: in every process; names the value of each rank.
    """
    _refuse_different(what, comm.all_gather(value))


def _refuse_different(what: str, values: list[Any]) -> None:
    if any(other != values[0] for other in values):
        listed = ", ".join(f"rank {rank}: {other}" for rank, other in enumerate(values))
        raise RuntimeError(f"The processes differ in the {what}: {listed}.")


def check_same_config(cfg: CfgNode) -> None:
    """Refuse to go on where the processes have different configs, but for where they write.

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
