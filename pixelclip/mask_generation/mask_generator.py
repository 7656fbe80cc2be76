"""What every mask generator is: a function from a photograph to the masks found in it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pixelclip.data.sa1b_writing import FoundMask


class MaskGenerator(ABC):
    """Finds masks without names; the same photograph always gets the same ones."""

    @abstractmethod
    def generate(self, image: NDArray[np.uint8]) -> Iterator[FoundMask]:
        """Find masks, which may overlap and need not cover everything.

        Args:
            image: (H, W, 3) RGB, at least one pixel.

        Returns:
            Masks (H, W) bool with at least one pixel each; perhaps none. They come one by one, as
            hundreds of the size of a photograph would fill the memory.
        """
