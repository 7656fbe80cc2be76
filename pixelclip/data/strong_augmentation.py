"""The strong augmentation that turns the weak (teacher's) image into the student's.

The distributions are those of torchvision's ``ColorJitter`` and ``RandomGrayscale`` and of Pillow's
``GaussianBlur``; the pixels are computed by OpenCV on 8 bits, which takes a fraction of the time.
"""

import random
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from torchvision import transforms

Pixels = NDArray[np.uint8]

# In OpenCV's "full" hue, 256 steps go round the colour circle.
_HUES = 256


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
        self._jitter = transforms.ColorJitter(
            brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25
        )
        self._colors_and_blur = transforms.Compose(
            [
                transforms.RandomApply([self._change_colors], p=0.8),
                transforms.RandomApply([_to_gray], p=0.2),
                transforms.RandomApply([_blur_at_random], p=0.5),
            ]
        )

    def __call__(self, image: Pixels) -> tuple[Pixels, Rectangle]:
        """Augment an RGB image.

        Args:
            image: (H, W, 3) uint8 array, RGB; left as it is.

        Returns:
            The strong image (H, W, 3) uint8, and the rectangle that is black in it: what it covers
            must be removed from the masks too.
        """
        strong = self._colors_and_blur(image)
        if strong is image:
            strong = image.copy()
        rectangle = _random_rectangle(*image.shape[:2])
        top, left, bottom, right = rectangle
        strong[top:bottom, left:right] = 0
        return strong, rectangle

    def _change_colors(self, image: Pixels) -> Pixels:
        jitter = self._jitter
        order, *factors = jitter.get_params(
            jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue
        )
        for index in order.tolist():
            image = _COLOR_CHANGES[index](image, factors[index])
        return image


def change_brightness(image: Pixels, factor: float) -> Pixels:
    """Multiply by a factor; as torchvision's ``adjust_brightness`` on a Pillow image."""
    return cv2.LUT(image, _blend_table(0, factor))


def change_contrast(image: Pixels, factor: float) -> Pixels:
    """Multiply the distances from the mean gray; as torchvision's ``adjust_contrast``."""
    mean = int(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean() + 0.5)
    return cv2.LUT(image, _blend_table(mean, factor))


def change_saturation(image: Pixels, factor: float) -> Pixels:
    """Multiply the distances from the pixel's gray; as torchvision's ``adjust_saturation``."""
    return cv2.addWeighted(image, factor, _to_gray(image), 1 - factor, 0)


def change_hue(image: Pixels, turn: float) -> Pixels:
    """Turn the hues by a part of the colour circle, in -0.5..0.5; as torchvision's ``adjust_hue``.

    Hues are rounded to 8 bits, which changes a grey level by less than 1 on average and by 10 at
    most; Pillow's, which torchvision takes, are rounded more coarsely.
    """
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    table = (np.arange(_HUES) + round(turn * _HUES)) % _HUES
    cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, 0), table.astype(np.uint8)), hsv, 0)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


# In the order in which torchvision's ColorJitter numbers them.
_COLOR_CHANGES: tuple[Callable[[Pixels, float], Pixels], ...] = (
    change_brightness,
    change_contrast,
    change_saturation,
    change_hue,
)


def _blend_table(gray: int, factor: float) -> Pixels:
    """What becomes of each of the 256 values between a gray (factor 0) and itself (factor 1)."""
    values = gray + factor * (np.arange(256, dtype=np.float32) - gray)
    return np.clip(values, 0, 255).astype(np.uint8)


def _to_gray(image: Pixels) -> Pixels:
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def _blur_at_random(image: Pixels) -> Pixels:
    return blur(image, sigma=random.uniform(0.1, 2.0))


def blur(image: Pixels, sigma: float) -> Pixels:
    """Blur with a Gaussian of a standard deviation in pixels; beyond the image its edge goes on."""
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)


def _random_rectangle(height: int, width: int) -> Rectangle:
    """A rectangle inside the image whose sides are 0.1 to 0.5 of the image's, at least a pixel."""
    rows = max(1, round(random.uniform(0.1, 0.5) * height))
    columns = max(1, round(random.uniform(0.1, 0.5) * width))
    top, left = random.randint(0, height - rows), random.randint(0, width - columns)
    return Rectangle(top, left, top + rows, left + columns)
