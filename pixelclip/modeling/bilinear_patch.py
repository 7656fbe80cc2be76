"""Bilinear resizing of which any part can be computed alone, to the same last bit.

``F.interpolate`` rounds differently with the number of channels and their order in memory. Here
each value is two rounded products and a rounded sum per axis, whatever is computed beside it, so
that parts of a map agree with the whole, and equal channels stay equal.

Shapes: C channels of h x w, resized to H x W, of which R x S are computed.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Size = tuple[int, int]


class Region(NamedTuple):
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right``, the latter ones exclusive."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> Size:
        """(height, width), 0 where it is empty."""
        return max(0, self.bottom - self.top), max(0, self.right - self.left)

    def scale(self, source: Size, target: Size) -> "Region":
        """The same region of an image of ``source`` pixels when it has ``target`` pixels."""
        vertical, horizontal = target[0] / source[0], target[1] / source[1]
        return Region(
            round(self.top * vertical),
            round(self.left * horizontal),
            round(self.bottom * vertical),
            round(self.right * horizontal),
        )

    def intersect(self, other: "Region") -> "Region":
        """What both have in common; its size is 0 where that is nothing."""
        return Region(
            max(self.top, other.top),
            max(self.left, other.left),
            min(self.bottom, other.bottom),
            min(self.right, other.right),
        )

    def relative_to(self, other: "Region") -> "Region":
        """The same region with rows and columns counted from another one's first."""
        return Region(
            self.top - other.top,
            self.left - other.left,
            self.bottom - other.top,
            self.right - other.left,
        )


class _Axis(NamedTuple):
    """Between which two positions each new position lies, and the share of the second."""

    before: Tensor  # (n,) int64
    after: Tensor  # (n,) int64
    share: Tensor  # (n,)


def source_range(length: int, new_length: int, start: int, stop: int) -> tuple[int, int]:
    """First and last position, exclusive, that the new positions start to stop are made of."""
    before, after, _ = _neighbours(length, new_length, start, stop)
    return int(before[0]), int(after[-1]) + 1


def resize_patch(maps: Tensor, size: Size, patch: Region) -> Tensor:
    """A patch of maps (C, h, w) after bilinear resizing to ``size``, as (C, R, S).

    Equals ``F.interpolate(mode="bilinear", align_corners=False)`` but for rounding.

    Args:
        maps: floating point.
        size: (H, W) to which all of the maps would be resized.
        patch: not empty, within H x W.
    """
    rows = _axis(maps.shape[1], size[0], patch.top, patch.bottom, maps)
    columns = _axis(maps.shape[2], size[1], patch.left, patch.right, maps)
    grid = maps.permute(1, 2, 0)  # (h, w, C): neighbouring channels are neighbours in memory
    share = columns.share[:, None]  # (S, 1)
    wide = grid[:, columns.before] * (1 - share)  # (h, S, C)
    wide += grid[:, columns.after] * share
    share = rows.share[:, None, None]  # (R, 1, 1)
    result = wide[rows.before] * (1 - share)  # (R, S, C)
    result += wide[rows.after] * share
    return result.permute(2, 0, 1)


def _axis(length: int, new_length: int, start: int, stop: int, like: Tensor) -> _Axis:
    before, after, share = _neighbours(length, new_length, start, stop)
    first, last = (torch.from_numpy(index).to(like.device) for index in (before, after))
    return _Axis(first, last, torch.from_numpy(share).to(like))


def _neighbours(
    length: int, new_length: int, start: int, stop: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # Pixels are areas: the centre of the new one is looked for between the centres of the old ones.
    position = (np.arange(start, stop) + 0.5) * (length / new_length) - 0.5
    position = position.clip(0, length - 1)
    before = np.floor(position).astype(np.int64)
    return before, np.minimum(before + 1, length - 1), position - before
