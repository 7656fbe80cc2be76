"""Masks at another size by nearest neighbor, and the mask that each pixel belongs to."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


def torch_nearest(length: int, new_length: int) -> IntArray:
    """Index in 0..length-1 that ``F.interpolate(mode="nearest")`` takes for each new pixel."""
    ramp = torch.arange(length, dtype=torch.float32)[None, None]  # (length,) -> (1, 1, length)
    resized = F.interpolate(ramp, size=new_length, mode="nearest")
    return resized[0, 0].long().numpy()  # (1, 1, new_length) -> (new_length,)


def shrink_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Resize a mask (H, W) by nearest neighbor to ``size``, as in training, without losing it.

    A mask that falls between the sampled pixels becomes those cells that hold one of its pixels.
    """
    height, width = mask.shape
    small = mask[np.ix_(torch_nearest(height, size[0]), torch_nearest(width, size[1]))]
    if not small.any():
        rows, columns = np.nonzero(mask)
        small[rows * size[0] // height, columns * size[1] // width] = True
    return small


class MaskIndexMap:
    """Which of several overlapping masks each pixel belongs to: the smallest one that has it.

    Masks are added one at a time: hundreds of full size would take hundreds of megabytes.
    ``index_map`` (height, width) int64 has the number of each pixel's mask, -1 for none: that of
    the fewest pixels, the earlier one of two. ``count`` is how many masks there are.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.index_map: IntArray = np.full(size, -1)
        self.count = 0
        self._area: IntArray = np.full(size, self.index_map.size + 1)

    def add(self, mask: NDArray[np.bool_]) -> None:
        """Add the next mask (height, width)."""
        area = np.count_nonzero(mask)
        gained = mask & (area < self._area)
        self.index_map[gained], self._area[gained] = self.count, area
        self.count += 1
