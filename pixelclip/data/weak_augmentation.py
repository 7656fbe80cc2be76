"""The weak augmentation (resize, crop, colours, flip), computed on the pixels of the crop only.

Where the crop lies follows from the size of the photograph, so that it is drawn before a pixel is
decoded. Resizing the part of the photograph that becomes the crop equals resizing the whole and
cutting the crop out, but for rounding: on photographs, one value in a thousand differs, by one.
"""

from typing import NamedTuple

import cv2
import numpy as np
from detectron2.data import transforms as T
from numpy.typing import NDArray
from PIL import Image

from pixelclip.data.image_reading import Photograph
from pixelclip.data.ssd_colors import augment_ssd_colors

Size = tuple[int, int]


class CropPlan(NamedTuple):
    """Where a crop comes from: resize the photograph, cut out the crop, flip it.

    Attributes:
        photograph: (height, width) of the photograph.
        resized: (height, width) of the resized photograph.
        top, left: the crop's first row and column in the resized photograph.
        crop: (height, width) of the crop.
        is_mirrored: left and right are exchanged.
        is_upside_down: top and bottom are exchanged.
    """

    photograph: Size
    resized: Size
    top: int
    left: int
    crop: Size
    is_mirrored: bool
    is_upside_down: bool

    def to_transforms(self) -> T.TransformList:
        """The same as Detectron2's transforms, for what belongs to the photograph."""
        height, width = self.crop
        flips = [T.HFlipTransform(width)] * self.is_mirrored
        flips += [T.VFlipTransform(height)] * self.is_upside_down
        resize = T.ResizeTransform(*self.photograph, *self.resized, Image.Resampling.BILINEAR)
        crop = T.CropTransform(self.left, self.top, width, height, self.resized[1], self.resized[0])
        return T.TransformList([resize, crop, *flips])


class WeakAugmentation:
    """The weak augmentation of the published training.

    Draws from the global generators of NumPy and ``random``.

    Args:
        resize: how the photograph is resized.
        crop: which part of the resized photograph is taken; None for all of it.
        flip: "horizontal", "vertical" or "none"; flipped with probability 0.5.
        changes_colors: whether SSD's colour augmentation is applied.
        encoder_size: (height, width) to which the image encoder will resize the crop: then JPEG
            files are decoded at a reduced scale where that has at least as many pixels. None for
            the full scale, always.

    Raises:
        ValueError: an unknown flip.
    """

    def __init__(
        self,
        resize: T.Augmentation,
        crop: T.Augmentation | None,
        flip: str,
        changes_colors: bool,
        encoder_size: Size | None = None,
    ) -> None:
        if flip not in ("horizontal", "vertical", "none"):
            raise ValueError(
                f"INPUT.RANDOM_FLIP is {flip!r}; expected 'horizontal', 'vertical' or 'none'"
            )
        self.resize = resize
        self.crop = crop
        self.flip = flip
        self.changes_colors = changes_colors
        self.encoder_size = encoder_size

    def plan(self, size: Size) -> CropPlan:
        """Draw a crop for a photograph of (height, width) pixels."""
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

    def __call__(self, photograph: Photograph) -> tuple[NDArray[np.uint8], CropPlan]:
        """Decode a photograph and make the weak image of it.

        Returns:
            (h, w, 3) RGB, and where it comes from.

        Raises:
            ImageReadError: the photograph cannot be decoded.
        """
        plan = self.plan(photograph.size)
        image, scale = photograph.decode(self._min_scale(plan))
        crop = cut_out(image, scale, plan)
        if self.changes_colors:
            crop = augment_ssd_colors(crop)
        return _flip(crop, plan), plan

    def _min_scale(self, plan: CropPlan) -> float:
        """The scale at which the photograph has as many pixels as the encoder will see."""
        if self.encoder_size is None:
            return 1.0
        resized = (new / old for new, old in zip(plan.resized, plan.photograph, strict=True))
        shown = (see / cut for see, cut in zip(self.encoder_size, plan.crop, strict=True))
        return max(a * b for a, b in zip(resized, shown, strict=True))


def cut_out(image: Image.Image, scale: float, plan: CropPlan) -> NDArray[np.uint8]:
    """The planned crop (h, w, 3), not yet flipped, of a photograph that was decoded at a scale."""
    vertical, horizontal = (
        scale * old / new for old, new in zip(plan.photograph, plan.resized, strict=True)
    )
    height, width = plan.crop
    box = (
        plan.left * horizontal,
        plan.top * vertical,
        # Rounding must not carry it beyond the image, which Pillow refuses.
        min((plan.left + width) * horizontal, image.width),
        min((plan.top + height) * vertical, image.height),
    )
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=box))


def _flip(crop: NDArray[np.uint8], plan: CropPlan) -> NDArray[np.uint8]:
    # OpenCV flips many times faster than a copy of NumPy's view.
    if plan.is_mirrored:
        crop = cv2.flip(crop, 1)
    return cv2.flip(crop, 0) if plan.is_upside_down else crop


def _blank(size: Size) -> NDArray[np.uint8]:
    """An image of a size, without memory for its pixels: Detectron2 asks images for their sizes."""
    return np.broadcast_to(np.uint8(0), (*size, 3))
