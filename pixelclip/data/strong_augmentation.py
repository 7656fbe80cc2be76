"""The strong augmentation that turns the weak (teacher's) image into the student's."""

import random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torchvision import transforms


class Rectangle(NamedTuple):
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right``, the latter ones exclusive."""

    top: int
    left: int
    bottom: int
    right: int


class StrongAugmentation:
    """Colour jitter, grayscale, Gaussian blur (each at random), and always one black rectangle.

    Draws from the global generators of torch and ``random``.
    """

    def __init__(self) -> None:
        jitter = transforms.ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25)
        self._colours = transforms.Compose(
            [
                transforms.RandomApply([jitter], p=0.8),
                transforms.RandomGrayscale(p=0.2),
                transforms.RandomApply([transforms.Lambda(_blur)], p=0.5),
            ]
        )

    def __call__(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Rectangle]:
        """Augment an RGB image.

        Args:
            image: (H, W, 3) uint8 array, RGB; left as it is.

        Returns:
            The strong image (H, W, 3) uint8, and the rectangle that is black in it: what it covers
            must be removed from the masks too.
        """
        strong = np.array(self._colours(Image.fromarray(image)))
        rectangle = _random_rectangle(*image.shape[:2])
        top, left, bottom, right = rectangle
        strong[top:bottom, left:right] = 0
        return strong, rectangle


def _blur(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def _random_rectangle(height: int, width: int) -> Rectangle:
    """A rectangle inside the image whose sides are 0.1 to 0.5 of the image's, at least a pixel."""
    rows = max(1, round(random.uniform(0.1, 0.5) * height))
    columns = max(1, round(random.uniform(0.1, 0.5) * width))
    top, left = random.randint(0, height - rows), random.randint(0, width - columns)
    return Rectangle(top, left, top + rows, left + columns)
