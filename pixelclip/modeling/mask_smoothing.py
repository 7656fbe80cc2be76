"""Similarity averaged inside masks, so that the boundaries of a label map become the masks'.

Shapes: C classes, N masks of (Mh, Mw), an output of out_h x out_w pixels, scores (C, h, w) of each
view of an image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pixelclip.data.nearest_sampling import torch_nearest
from pixelclip.modeling.bilinear_patch import Region, Size
from pixelclip.modeling.mask_pooling import weigh_positions


class SmoothingMasks(NamedTuple):
    """The masks of one image.

    Attributes:
        masks: (N, Mh, Mw) bool, each with at least one pixel.
        owner: (height, width) int64, of any size: the mask that each pixel takes its scores from,
            -1 where it keeps its own.
    """

    masks: Tensor
    owner: Tensor


def pool_scores(
    scores: Sequence[Tensor], regions: Sequence[Region], output_size: Size, masks: Tensor
) -> Tensor:
    """Mean score (N, C) of the pixels of each mask, a pixel's being the mean of all views of it.

    Nothing is upsampled: see ``mask_pooling.py``.

    Args:
        scores: of each view, (C, h, w), not mirrored.
        regions: the part of the output that each view shows; together they are all of it.
        output_size: (out_h, out_w), in whose pixels the regions are.
        masks: (N, Mh, Mw) bool, none of them empty.
    """
    size = (masks.shape[1], masks.shape[2])
    weights = masks.to(scores[0])
    shown = [region.scale(output_size, size) for region in regions]
    # How many views show each pixel of the masks: every one is shown.
    counts = weights.new_zeros(size)
    for top, left, bottom, right in shown:
        counts[top:bottom, left:right] += 1
    weights = weights / counts
    total = weights.new_zeros(len(masks), len(scores[0]))
    for of_view, (top, left, bottom, right) in zip(scores, shown, strict=True):
        if top < bottom and left < right:
            grid = (of_view.shape[1], of_view.shape[2])
            positions = weigh_positions(weights[:, top:bottom, left:right], grid)  # (N, h, w)
            total += positions.flatten(1) @ of_view.flatten(1).T
    return total / masks.sum(dim=(1, 2))[:, None]


def resize_owner(owner: Tensor, size: Size) -> Tensor:
    """A map of owners at another (height, width), by nearest neighbour."""
    rows, columns = (
        torch.from_numpy(torch_nearest(*sides)).to(owner.device)
        for sides in zip(owner.shape, size, strict=True)
    )
    return owner[rows[:, None], columns]
