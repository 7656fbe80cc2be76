"""Floating-point operations of a computation, and the most that a device can do in a second.

fvcore counts neither a backward pass nor fused attention; torch's own counter sees both.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

_SIDE = {"cpu": 2048, "cuda": 8192}
_REPEATS = 5


def count_operations(step: Callable[[], object]) -> int:
    """Operations of matrix products, convolutions and attention in ``step``, backward included.

    A multiplication and an addition are two operations.
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    # It would hide nn.MultiheadAttention's products from the counter.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        counter = FlopCounterMode(display=False, custom_mapping=_attention_on_cpu())
        counter.mod_tracker = _NoModules()  # type: ignore[assignment]
        with counter:
            step()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return int(counter.get_total_flops())


class _NoModules(nullcontext[None]):
    """In the place of torch's tracker, which counts by module and breaks off in the chunked loss.

    Its hooks do not allow ``torch.autograd.grad``.
    """

    parents = frozenset({"Global"})


def _attention_on_cpu() -> dict[Any, Any]:
    """The CPU's fused attention, which torch's counter leaves out."""

    def forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(query, key, value)

    def backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_backward_flop_count(gradient, query, key, value)

    return {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: forward,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }


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
