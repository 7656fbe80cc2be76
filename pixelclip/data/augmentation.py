"""The weak augmentation, which makes the teacher's image, and the strong one, the student's of it.

The weak crop is drawn before a pixel is decoded. Resizing the part of the image that becomes the
crop equals resizing the whole and cutting the crop out, but for rounding: on photos, one value in a
thousand differs, by one. Random numbers are drawn as Detectron2 and torchvision draw them, and
colors change as with Pillow; OpenCV computes them on 8 bits, which takes a fraction of the time.
"""

import random
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform
from numpy.typing import NDArray
from PIL import Image
from torchvision import transforms

from pixelclip.data.images import ImageFile

Size = tuple[int, int]
Pixels = NDArray[np.uint8]
IntArray = NDArray[np.int64]
Rectangle = tuple[int, int, int, int]  # top, left, bottom and right, the latter two exclusive

# The constants of the published training code. Those of the weak augmentation are config keys, and
# in Detectron2's defaults for SSD's color augmentation.
JITTER_PROBABILITY = 0.8
JITTER = {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.25}
GRAY_PROBABILITY = 0.2
BLUR_PROBABILITY = 0.5
BLUR_SIGMA = (0.1, 2.0)  # in pixels, drawn uniformly
RECTANGLE_SIDES = (0.1, 0.5)  # shares of the image's sides, drawn uniformly


class CropPlan(NamedTuple):
    """Where a crop comes from: resize the image, cut out the crop, flip it."""

    original: Size  # (height, width) of the image
    resized: Size  # of the resized image
    top: int  # the crop's first row in the resized image
    left: int  # and its first column
    crop: Size  # of the crop
    horizontal_flip: bool
    vertical_flip: bool

    def source_pixels(self) -> tuple[IntArray, IntArray]:
        """The image's row (h,) of each row of the crop's masks, and column (w,) of each column.

        A mask so needs one gather only: resizing, cropping and flipping work row by row.
        """
        rows, columns = map(pillow_nearest, self.original, self.resized)
        rows = rows[self.top : self.top + self.crop[0]]
        columns = columns[self.left : self.left + self.crop[1]]
        if self.vertical_flip:
            rows = rows[::-1]
        return rows, columns[::-1] if self.horizontal_flip else columns


def pillow_nearest(length: int, new_length: int) -> IntArray:
    """Index in 0..length-1 that Pillow's nearest-neighbor resize takes for each new pixel."""
    # Pillow adds up its step in floating point; asking it is the only way to round as it does.
    ramp = Image.fromarray(np.arange(length, dtype=np.int32)[None])  # (length,) -> (1, length)
    resized = ramp.resize((new_length, 1), Image.Resampling.NEAREST)
    return np.asarray(resized)[0].astype(np.int64)  # (1, new_length) -> (new_length,)


@dataclass(frozen=True)
class WeakAugmentation:
    """Resize, crop, SSD's color augmentation and flip, computed on the pixels of the crop only.

    Draws from the global generators of NumPy and ``random``. Raises ValueError for an unknown flip.
    """

    resize: T.Augmentation
    crop: T.Augmentation | None  # of the resized image; None takes all of it
    flip: str  # "horizontal", "vertical" or "none"; flipped with probability 0.5
    color_augmentation: bool  # SSD's
    # (height, width) to which the image encoder will resize the crop: JPEG files are decoded at a
    # reduced scale where that has at least as many pixels. None: never.
    encoder_size: Size | None = None

    def __post_init__(self) -> None:
        if self.flip not in ("horizontal", "vertical", "none"):
            raise ValueError(
                f"INPUT.RANDOM_FLIP is {self.flip!r}; expected 'horizontal', 'vertical' or 'none'"
            )

    def plan(self, size: Size) -> CropPlan:
        """Draw a crop for an image of (height, width) pixels."""
        resize = self.resize.get_transform(_blank(size))
        resized = size
        if isinstance(resize, T.ResizeTransform):  # it is none where nothing is to be resized
            resized = (resize.new_h, resize.new_w)
        top, left, crop = 0, 0, resized
        if self.crop is not None:
            cut = self.crop.get_transform(_blank(resized))
            top, left, crop = cut.y0, cut.x0, (cut.h, cut.w)
        flip = self.flip if self.flip != "none" and np.random.uniform() < 0.5 else "none"
        return CropPlan(size, resized, top, left, crop, flip == "horizontal", flip == "vertical")

    def __call__(self, image: ImageFile) -> tuple[Pixels, CropPlan]:
        """The weak image (h, w, 3) RGB of an image file, and where it comes from.

        Raises:
            ImageReadError: the file cannot be decoded.
        """
        plan = self.plan(image.size)
        crop = cut_out(*image.decode(self._min_scale(plan)), plan)
        if self.color_augmentation:
            crop = augment_ssd_colors(crop)
        # OpenCV flips many times faster than a copy of NumPy's view.
        if plan.horizontal_flip:
            crop = cv2.flip(crop, 1)
        return (cv2.flip(crop, 0) if plan.vertical_flip else crop), plan

    def _min_scale(self, plan: CropPlan) -> float:
        """The scale at which the image has as many pixels as the encoder will see."""
        if self.encoder_size is None:
            return 1.0
        sides = zip(plan.resized, plan.original, self.encoder_size, plan.crop, strict=True)
        return max((new / old) * (seen / cut) for new, old, seen, cut in sides)


def _blank(size: Size) -> Pixels:
    """An image without memory for its pixels: Detectron2 asks images for their sizes."""
    return np.broadcast_to(np.uint8(0), (*size, 3))


def cut_out(image: Image.Image, scale: float, plan: CropPlan) -> Pixels:
    """The planned crop (h, w, 3), not yet flipped, of an image that was decoded at a scale."""
    y, x = (scale * old / new for old, new in zip(plan.original, plan.resized, strict=True))
    height, width = plan.crop
    # Rounding must not carry it beyond the image, which Pillow refuses.
    bottom = min((plan.top + height) * y, image.height)
    right = min((plan.left + width) * x, image.width)
    box = (plan.left * x, plan.top * y, right, bottom)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=box))


class _ColorAugSSD(ColorAugSSDTransform):
    """Detectron2's transform, with a look-up of the 256 values instead of arithmetic per pixel."""

    def convert(self, image: Pixels, alpha: float = 1, beta: float = 0) -> Pixels:
        values = np.arange(256, dtype=np.float32) * alpha + beta
        return cv2.LUT(image, np.clip(values, 0, 255).astype(np.uint8))


def augment_ssd_colors(image: Pixels) -> Pixels:
    """Change brightness, contrast, saturation and hue at random, each with probability 0.5.

    Equals ``ColorAugSSDTransform`` of Detectron2's PointRend project, number by number, on an image
    (H, W, 3) in RGB, which is left as it is. Draws from the global generator of ``random``.
    """
    bgr = _ColorAugSSD("BGR").apply_image(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


class StrongAugmentation:
    """Color jitter, grayscale, Gaussian blur (each at random), and always one black rectangle.

    Draws from the global generators of torch and ``random``.
    """

    def __init__(self) -> None:
        self._jitter = transforms.ColorJitter(**JITTER)
        self._colors_and_blur = (
            transforms.RandomApply([self._jitter_colors], JITTER_PROBABILITY),
            transforms.RandomApply([_to_gray], GRAY_PROBABILITY),
            transforms.RandomApply([_blur_at_random], BLUR_PROBABILITY),
        )

    def __call__(self, image: Pixels) -> tuple[Pixels, Rectangle]:
        """Augment an image (H, W, 3) uint8 in RGB, which is left as it is.

        Returns:
            The strong image (H, W, 3) uint8, and the rectangle that is black in it: what it covers
            must be removed from the masks too.
        """
        strong = image
        for change in self._colors_and_blur:
            strong = change(strong)
        if strong is image:
            strong = image.copy()
        height, width = image.shape[:2]
        rows = max(1, round(random.uniform(*RECTANGLE_SIDES) * height))
        columns = max(1, round(random.uniform(*RECTANGLE_SIDES) * width))
        top, left = random.randint(0, height - rows), random.randint(0, width - columns)
        strong[top : top + rows, left : left + columns] = 0
        return strong, (top, left, top + rows, left + columns)

    def _jitter_colors(self, image: Pixels) -> Pixels:
        order, *factors = self._jitter.get_params(*(getattr(self._jitter, name) for name in JITTER))
        for index in order.tolist():
            image = _ADJUSTMENTS[index](image, factors[index])
        return image


def adjust_brightness(image: Pixels, factor: float) -> Pixels:
    """Multiply by a factor; as torchvision's ``adjust_brightness`` on a Pillow image."""
    return cv2.LUT(image, _blend_table(0, factor))


def adjust_contrast(image: Pixels, factor: float) -> Pixels:
    """Multiply the distances from the mean gray; as torchvision's ``adjust_contrast``."""
    mean = int(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean() + 0.5)
    return cv2.LUT(image, _blend_table(mean, factor))


def adjust_saturation(image: Pixels, factor: float) -> Pixels:
    """Multiply the distances from the pixel's gray; as torchvision's ``adjust_saturation``."""
    return cv2.addWeighted(image, factor, _to_gray(image), 1 - factor, 0)


def adjust_hue(image: Pixels, turn: float) -> Pixels:
    """Turn the hues by a part of the color circle, in -0.5..0.5; as torchvision's ``adjust_hue``.

    Hues are rounded to 8 bits, less coarsely than Pillow's, which torchvision takes.
    """
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)  # 256 steps go round the color circle
    table = (np.arange(256) + round(turn * 256)) % 256
    cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, 0), table.astype(np.uint8)), hsv, 0)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


# In the order in which torchvision's ColorJitter numbers them.
_ADJUSTMENTS = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)


def _blend_table(gray: int, factor: float) -> Pixels:
    """What becomes of each of the 256 values between a gray (factor 0) and itself (factor 1)."""
    values = gray + factor * (np.arange(256, dtype=np.float32) - gray)
    return np.clip(values, 0, 255).astype(np.uint8)


def _to_gray(image: Pixels) -> Pixels:
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def _blur_at_random(image: Pixels) -> Pixels:
    return blur(image, sigma=random.uniform(*BLUR_SIGMA))


def blur(image: Pixels, sigma: float) -> Pixels:
    """Blur with a Gaussian of a standard deviation in pixels; its edge continues outside."""
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
