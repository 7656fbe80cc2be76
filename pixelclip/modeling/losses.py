"""The training loss, whose gradient is computed along with it, some maps at a time.

Training's largest tensors are those of the mask decoder, which takes every map on its own and whose
outputs only enter a sum. Such a sum needs the intermediate results of one chunk of maps at a time,
not of all of them until the backward pass; and nothing is computed twice.

Shapes: B images, n similarity maps of h x w, mask resolution (Mh, Mw).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelclip.modeling.targets import MaskTargets

# Number of maps that are decoded at a time: on a CPU their features stay in its cache, on
# a GPU they are as many as keep it busy, in about 2 GB.
MAPS_AT_A_TIME = {"cpu": 8, "cuda": 256}

# Inside, gradients are scaled by a power of two, which only matters for float16: the gradient of a
# kernel, summed over all pixels of a chunk, would leave its range.
_GRADIENT_SCALE = 2.0**-10

# (chunk of the items, their indices) -> scalar
PartialSum = Callable[[Tensor, slice], Tensor]


def decoded_mask_loss(
    decoder: nn.Module, similarity: Tensor, targets: MaskTargets, total_pixels: Tensor
) -> Tensor:
    """Binary cross entropy of decoded similarity maps, averaged over the pixels that count.

    Source: paper section 3.3.

    Args:
        decoder: makes mask logits (n, 1, h', w') of maps (n, 1, h, w), of each map on its own.
        similarity: (n, h, w).
        targets: of the n maps.
        total_pixels: positive scalar, :func:`count_pixels` of the targets, or that of all
            processes' targets divided by their number, because DistributedDataParallel averages.

    Returns:
        Scalar float32.
    """

    def decoded_sum(maps: Tensor, indices: slice) -> Tensor:
        valid_mask = targets.valid_mask[targets.image_index[indices]]  # (chunk, Mh, Mw)
        return summed_cross_entropy(decoder(maps), targets.masks[indices], valid_mask)

    total = chunked_sum(
        decoded_sum,
        similarity[:, None],  # (n, 1, h, w)
        list(decoder.parameters()),
        MAPS_AT_A_TIME.get(similarity.device.type, MAPS_AT_A_TIME["cuda"]),
    )
    return total / total_pixels


def count_pixels(image_index: Tensor, valid_mask: Tensor) -> Tensor:
    """Number, scalar int64, of the pixels over which the loss is a mean.

    Args:
        image_index: (n,) int64, image of each map.
        valid_mask: (B, Mh, Mw) bool, which pixels of each image count, in each of its maps.
    """
    return valid_mask.flatten(1).sum(dim=1)[image_index].sum()


def summed_cross_entropy(logits: Tensor, targets: Tensor, valid_mask: Tensor) -> Tensor:
    """Binary cross entropy, summed over the valid pixels, scalar float32.

    Args:
        logits: (n, 1, h, w) float, resized bilinearly to the targets' resolution.
        targets: (n, Mh, Mw) bool.
        valid_mask: (n, Mh, Mw) bool.
    """
    with torch.autocast(logits.device.type, enabled=False):
        size = targets.shape[-2:]
        logits = F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)[:, 0]
        # -log(sigmoid(x)) = softplus(-x), and -log(1 - sigmoid(x)) = softplus(x); softplus(-inf)
        # is 0, and so is its gradient.
        signed = torch.where(targets, -logits, logits).masked_fill(~valid_mask, -torch.inf)
        return F.softplus(signed).sum()


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
        parameter_gradients: list[Tensor | None] = [None] * ctx.num_parameters
        for index, gradient in zip(ctx.wanted, gradients, strict=True):
            parameter_gradients[index] = gradient
        return None, None, item_gradients, *parameter_gradients
