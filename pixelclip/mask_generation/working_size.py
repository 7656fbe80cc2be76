"""Masks are looked for in a smaller picture than the photograph, as SAM does."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelclip.data.nearest_sampling import torch_nearest


def shrink_image(image: NDArray[np.uint8], longest_side: int) -> NDArray[np.uint8]:
    """The image (H, W, 3) with its longer side at most so many pixels; never enlarged."""
    height, width = image.shape[:2]
    scale = longest_side / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def enlarge_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask (h, w) at another (height, width), by nearest neighbour.

    With at least as many rows and columns as before, no pixel is lost. In memory, columns come one
    after the other, which is the order of run-length codes.
    """
    rows, columns = (torch_nearest(*sides) for sides in zip(mask.shape, size, strict=True))
    # Rows first: then whole columns are copied, which is several times faster.
    return mask.T[:, rows][columns].T
