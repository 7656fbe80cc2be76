"""Which of several overlapping masks each pixel belongs to: the smallest one that has it."""

import numpy as np
from numpy.typing import NDArray


class MaskOwnership:
    """Collects masks one at a time: hundreds of full size would take hundreds of megabytes.

    Args:
        size: (height, width) of the masks.

    Attributes:
        owner: (height, width) int64, the number of the mask that owns each pixel, -1 for none:
            that of the fewest pixels, the earlier one of two.
        count: how many masks there are.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.owner: NDArray[np.int64] = np.full(size, -1)
        self.count = 0
        self._area: NDArray[np.int64] = np.full(size, self.owner.size + 1)

    def add(self, mask: NDArray[np.bool_]) -> None:
        """Let the next mask (height, width) own what it can."""
        area = np.count_nonzero(mask)
        owned = mask & (area < self._area)
        self.owner[owned], self._area[owned] = self.count, area
        self.count += 1
