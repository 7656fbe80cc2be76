"""Images whose regions are known."""

import numpy as np
from numpy.typing import NDArray


def draw_regions(height: int = 120, width: int = 160, seed: int = 0):
    """A noisy image (H, W, 3) of a sky, a meadow, a ball and a box, and their masks (4, H, W)."""
    rows, columns = np.mgrid[:height, :width]
    ball = (rows - 0.35 * height) ** 2 + (columns - 0.25 * width) ** 2 < (0.15 * height) ** 2
    box = (rows > 0.5 * height) & (rows < 0.9 * height) & (columns > 0.6 * width)
    box &= columns < 0.9 * width
    meadow = (rows >= 0.6 * height) & ~box
    labels = np.zeros((height, width), int)
    for number, mask in enumerate((meadow, ball, box), start=1):
        labels[mask] = number
    colors = np.array([[120, 170, 230], [60, 140, 50], [220, 60, 40], [240, 210, 60]])
    noise = np.random.default_rng(seed).normal(0, 5, (height, width, 3))
    image = (colors[labels] + noise).clip(0, 255).astype(np.uint8)
    return image, labels == np.arange(4)[:, None, None]


def best_overlaps(found: list[NDArray[np.bool_]], true: NDArray[np.bool_]) -> NDArray[np.float64]:
    """For each true mask (N, H, W), the highest intersection over union that a found one has."""
    masks = np.array(found)[:, None]  # (F, 1, H, W)
    return ((masks & true).sum((2, 3)) / (masks | true).sum((2, 3))).max(axis=0)
