"""Which source pixel each pixel of a mask comes from after resize, crop, flip and resize.

All of these treat rows and columns separately, so that their composition is one array of source
rows and one of source columns, and a mask needs one gather only.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.data.transforms import (
    CropTransform,
    HFlipTransform,
    NoOpTransform,
    ResizeTransform,
    Transform,
    TransformList,
    VFlipTransform,
)
from detectron2.projects.point_rend import ColorAugSSDTransform
from numpy.typing import NDArray
from PIL import Image

IntArray = NDArray[np.int64]

_COLOUR_ONLY = (NoOpTransform, ColorAugSSDTransform)


class SourcePixels(NamedTuple):
    """The source row of each row of the result, and the source column of each column."""

    rows: IntArray  # (R,)
    columns: IntArray  # (C,)


def follow_transforms(transforms: TransformList, height: int, width: int) -> SourcePixels:
    """Source pixels of a mask under ``apply_segmentation`` of resizes, crops and flips.

    Args:
        transforms: what Detectron2's augmentations returned for an image of height x width pixels.

    Raises:
        NotImplementedError: a transform that this module does not know.
    """
    source = SourcePixels(np.arange(height), np.arange(width))
    for transform in transforms.transforms:
        source = _follow(transform, source)
    return source


def _follow(transform: Transform, source: SourcePixels) -> SourcePixels:
    rows, columns = source
    if isinstance(transform, ResizeTransform):
        return SourcePixels(
            rows[pillow_nearest(len(rows), transform.new_h)],
            columns[pillow_nearest(len(columns), transform.new_w)],
        )
    if isinstance(transform, CropTransform):
        return SourcePixels(
            rows[transform.y0 : transform.y0 + transform.h],
            columns[transform.x0 : transform.x0 + transform.w],
        )
    if isinstance(transform, HFlipTransform):
        return SourcePixels(rows, columns[::-1])
    if isinstance(transform, VFlipTransform):
        return SourcePixels(rows[::-1], columns)
    if isinstance(transform, _COLOUR_ONLY):
        return source
    raise NotImplementedError(f"cannot follow masks through {type(transform).__name__}")


def pillow_nearest(length: int, new_length: int) -> IntArray:
    """Index in 0..length-1 that Pillow's nearest-neighbour resize takes for each new pixel."""
    # Pillow adds up its step in floating point; asking it is the only way to round as it does.
    ramp = Image.fromarray(np.arange(length, dtype=np.int32)[None])  # (length,) -> (1, length)
    resized = ramp.resize((new_length, 1), Image.Resampling.NEAREST)
    return np.asarray(resized)[0].astype(np.int64)  # (1, new_length) -> (new_length,)


def torch_nearest(length: int, new_length: int) -> IntArray:
    """Index in 0..length-1 that ``F.interpolate(mode="nearest")`` takes for each new pixel."""
    ramp = torch.arange(length, dtype=torch.float32)[None, None]  # (length,) -> (1, 1, length)
    resized = F.interpolate(ramp, size=new_length, mode="nearest")
    return resized[0, 0].long().numpy()  # (1, 1, new_length) -> (new_length,)


def shrink_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Resize a mask (H, W) by nearest neighbour to ``size``, as in training, without losing it.

    A mask that falls between the sampled pixels becomes those cells that hold one of its pixels.
    """
    height, width = mask.shape
    small = mask[np.ix_(torch_nearest(height, size[0]), torch_nearest(width, size[1]))]
    if not small.any():
        rows, columns = np.nonzero(mask)
        small[rows * size[0] // height, columns * size[1] // width] = True
    return small
