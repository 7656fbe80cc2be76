"""Time, memory and floating-point operations of a computation, measured from outside."""

import resource
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

# What a function is looked up in, the function's name there, and the name of its part.
Stage = tuple[Any, str, str]

# Side of the matrices whose product shows what a device can do.
_SIDE = {"cpu": 2048, "cuda": 8192}


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was asked for; the CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class StageClock:
    """``seconds`` of each stage by its name; of nested ones, each without those inside it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = 0.0

    @contextmanager
    def watch(self, stages: Sequence[Stage]) -> Iterator[None]:
        """Count the calls of the stages' functions inside the block.

        Raises:
            AttributeError: a stage's owner has no such function.
        """
        with ExitStack() as stack:
            for owner, attribute, name in stages:
                timed = self._timed(getattr(owner, attribute), name)
                stack.enter_context(patch.object(owner, attribute, timed))
            yield

    def _timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def timed(*arguments: Any, **keywords: Any) -> Any:
            self._switch()
            self._running.append(name)
            try:
                return function(*arguments, **keywords)
            finally:
                self._switch()
                self._running.pop()

        return timed

    def _switch(self) -> None:
        """Credit the time since the last switch to the innermost stage that runs."""
        synchronize(self._device)
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


def count_operations(step: Callable[[], object]) -> int:
    """Operations of matrix products, convolutions and attention in ``step``, backward included.

    A multiplication and an addition are two operations.
    """
    aten = torch.ops.aten
    # The CPU's fused attention is missing among torch's formulas.
    missing = {
        aten._scaled_dot_product_flash_attention_for_cpu: (
            lambda *shapes, **_: sdpa_flop_count(*shapes[:3])
        ),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: (
            lambda *shapes, **_: sdpa_backward_flop_count(*shapes[:4])
        ),
    }
    counter = FlopCounterMode(display=False, custom_mapping=missing)
    with _without_fused_code(), counter:
        step()
    return counter.get_total_flops()


@contextmanager
def _without_fused_code() -> Iterator[None]:
    """Neither compiled code nor nn.MultiheadAttention's fast path, whose products nobody sees."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    set_stance = getattr(torch.compiler, "set_stance", None)  # from torch 2.6 on
    try:
        with set_stance("force_eager") if set_stance else nullcontext():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def measure_peak(device: torch.device, precision: str) -> float:
    """Operations per second of the fastest of some products of two large matrices."""
    side = _SIDE[device.type]
    # Random numbers: a GPU multiplies constants at a higher clock.
    matrix = torch.randn(side, side, device=device).to(getattr(torch, precision))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        torch.mm(matrix, matrix)
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds)


def find_synchronizations(device: torch.device, step: Callable[[], object]) -> Counter[str]:
    """Where in ``step`` the CPU waits for a GPU, as "file:line", and how often.

    As torch finds it, which does not look at collectives; on the CPU there is nothing to wait for.
    """
    if device.type != "cuda":
        return Counter()
    synchronize(device)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    found = [one for one in caught if "called a synchronizing" in str(one.message)]
    return Counter(f"{Path(one.filename).name}:{one.lineno}" for one in found)


def reset_peak_memory(device: torch.device) -> None:
    """Start again; on the CPU this needs Linux, elsewhere the peak is that of the whole process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def read_peak_memory(device: torch.device) -> int:
    """Bytes: of CUDA's allocator on a GPU, resident ones of the whole process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Not reset, and in a child at least its parent's, is what getrusage says.
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
