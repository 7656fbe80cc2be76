"""The colour augmentation of SSD on 8-bit images, by table look-up.

It equals, number by number, ``ColorAugSSDTransform`` of Detectron2's PointRend project, which
computes the same per pixel in floating point: of 8 bits there are only 256 values to compute.
"""

import random

import cv2
import numpy as np
from numpy.typing import NDArray

_BRIGHTNESS_DELTA = 32.0
_FACTORS = (0.5, 1.5)  # of contrast and saturation
_HUE_DELTA = 18
_NUM_HUES = 180  # OpenCV halves the degrees, so that they fit into 8 bits

Pixels = NDArray[np.uint8]


def augment_ssd_colors(image: Pixels) -> Pixels:
    """Change brightness, contrast, saturation and hue at random, each with probability 0.5.

    Draws from the global generator of ``random``.

    Args:
        image: (H, W, 3) RGB; left as it is.

    Returns:
        (H, W, 3) RGB; the image itself where nothing was drawn.
    """
    image = _brightness(image)
    if random.randrange(2):
        return _hue(_saturation(_contrast(image)))
    return _contrast(_hue(_saturation(image)))


def _brightness(image: Pixels) -> Pixels:
    if not random.randrange(2):
        return image
    return cv2.LUT(image, _linear(1.0, random.uniform(-_BRIGHTNESS_DELTA, _BRIGHTNESS_DELTA)))


def _contrast(image: Pixels) -> Pixels:
    return cv2.LUT(image, _linear(random.uniform(*_FACTORS), 0.0)) if random.randrange(2) else image


def _saturation(image: Pixels) -> Pixels:
    if not random.randrange(2):
        return image
    return _map_hsv(image, channel=1, table=_linear(random.uniform(*_FACTORS), 0.0))


def _hue(image: Pixels) -> Pixels:
    if not random.randrange(2):
        return image
    table = (np.arange(256) + random.randint(-_HUE_DELTA, _HUE_DELTA)) % _NUM_HUES
    return _map_hsv(image, channel=0, table=table.astype(np.uint8))


def _linear(factor: float, offset: float) -> Pixels:
    """What becomes of each of the 256 values: cut off below 0 and above 255, rounded down."""
    values = np.arange(256, dtype=np.float32) * factor + offset
    return np.clip(values, 0, 255).astype(np.uint8)


def _map_hsv(image: Pixels, channel: int, table: Pixels) -> Pixels:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, channel), table), hsv, channel)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
