"""A sum over many items whose gradient is computed along with it, chunk by chunk.

Training's largest tensors are those of the mask decoder, of which every map goes through by itself
and whose outputs only enter a sum. Such a sum needs the intermediate results of one chunk at a
time, not of all of them until the backward pass; and nothing is computed twice.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

# Inside, gradients are scaled by a power of two, which only matters for float16: the gradient of a
# kernel, summed over all pixels of a chunk, would leave its range.
_GRADIENT_SCALE = 2.0**-10

# (chunk of the items, their indices) -> scalar
PartialSum = Callable[[Tensor, slice], Tensor]


def chunked_sum(
    partial_sum: PartialSum, items: Tensor, parameters: Sequence[Tensor], chunk_size: int
) -> Tensor:
    """Sum of ``partial_sum`` over chunks of the items, with one chunk's memory.

    It can be differentiated once, with respect to the items and the parameters.

    Args:
        partial_sum: called with ``items[start:stop]`` and ``slice(start, stop)``; sums over items
            that do not influence each other.
        items: (n, ...); n may be zero.
        parameters: all tensors besides the items that the sum's gradient is wanted for.
        chunk_size: number of items in a chunk.

    Returns:
        Scalar float32.
    """
    return _ChunkedSum.apply(partial_sum, chunk_size, items, *parameters)


class _ChunkedSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, partial_sum: PartialSum, chunk_size: int, items: Tensor, *parameters: Tensor
    ) -> Tensor:
        wanted = [index for index, p in enumerate(parameters) if ctx.needs_input_grad[3 + index]]
        trained = [parameters[index] for index in wanted]
        differentiate = any(ctx.needs_input_grad)
        total = items.new_zeros((), dtype=torch.float32)
        item_gradients = torch.zeros_like(items)
        gradients = [torch.zeros_like(p) for p in trained]
        for start in range(0, len(items), chunk_size):
            indices = slice(start, min(start + chunk_size, len(items)))
            chunk = items[indices].detach().requires_grad_(differentiate)
            with torch.set_grad_enabled(differentiate):
                # As a view: hooks of modules, such as those of torch's operation counter, refuse
                # to be put on the very tensor whose gradient is asked for.
                scaled = partial_sum(chunk.view_as(chunk), indices) * _GRADIENT_SCALE
            total += scaled.detach() / _GRADIENT_SCALE
            if differentiate:
                # As in a backward pass: autocast would round what is done in full precision.
                with torch.autocast(items.device.type, enabled=False):
                    chunk_gradient, *rest = torch.autograd.grad(scaled, [chunk, *trained])
                item_gradients[indices] = chunk_gradient
                if rest:
                    torch._foreach_add_(gradients, rest)
        ctx.wanted, ctx.num_parameters = wanted, len(parameters)
        ctx.save_for_backward(item_gradients, *gradients)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        factor = grad_output / _GRADIENT_SCALE
        item_gradients, *gradients = [saved * factor for saved in ctx.saved_tensors]
        of_parameters: list[Tensor | None] = [None] * ctx.num_parameters
        for index, gradient in zip(ctx.wanted, gradients, strict=True):
            of_parameters[index] = gradient
        return None, None, item_gradients, *of_parameters
