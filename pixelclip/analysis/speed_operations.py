"""Floating-point operations of a computation, and the most that a device can do in a second.

torch's formulas are used because fvcore counts neither a backward pass nor fused attention; torch's
own FlopCounterMode cannot follow a step that computes gradients within its forward pass.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

_SIDE = {"cpu": 2048, "cuda": 8192}
_REPEATS = 5


def count_operations(step: Callable[[], object]) -> int:
    """Operations of matrix products, convolutions and attention in ``step``, backward included.

    A multiplication and an addition are two operations.
    """
    counter = _OperationCounter()
    with _without_fused_code(), counter:
        step()
    return counter.total


class _OperationCounter(TorchDispatchMode):
    """Adds up the operations of every kernel that torch has a formula for."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, kernel: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = kernel(*args, **(kwargs or {}))
        self.total += _operations_of(kernel.overloadpacket, args, kwargs or {}, result)
        return result


def _operations_of(kernel: Any, args: Any, kwargs: Any, result: Any) -> int:
    # The CPU's fused attention is missing among torch's formulas.
    if kernel is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
        return sdpa_flop_count(*(tensor.shape for tensor in args[:3]))
    if kernel is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward:
        return sdpa_backward_flop_count(*(tensor.shape for tensor in args[:4]))
    formula = flop_registry.get(kernel)
    return formula(*args, **kwargs, out_val=result) if formula else 0


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


def measure_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of the fastest of some products of two large square matrices."""
    side = _SIDE[device.type]
    matrix = torch.ones(side, side, device=device, dtype=dtype)
    seconds = min(_time_product(matrix) for _ in range(_REPEATS))
    return 2 * side**3 / seconds


def _time_product(matrix: torch.Tensor) -> float:
    synchronize(matrix.device)
    start = time.perf_counter()
    torch.mm(matrix, matrix)
    synchronize(matrix.device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was asked for; the CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
