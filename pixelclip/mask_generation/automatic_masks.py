"""The masks that Segment Anything finds alone, asked about the points of a grid.

The parameters are the published ones. What differs:

- Points that a mask of another point covers are skipped, and their number is limited, unless
  :func:`find_masks` is told otherwise.
- Stability and boxes are those of the decoder's logits, at a quarter of the image's resolution, and
  only the masks that stay are enlarged. A few percent fewer are stable.
- Small regions are removed, as for SA-1B; the published code does so only when it is asked to, and
  then compares the masks again.
- The image is the only crop, as it is by default in the published code.

Shapes: P points, M masks; the image, scaled to (h, w), is the upper left part of a square.

Source: Kirillov et al., "Segment anything", 2023, appendix B.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import masks_to_boxes, nms
from torchvision.transforms.functional import normalize

from pixelclip.data.sa1b_files import FoundMask
from pixelclip.mask_generation.point_decoder import PointDecoder

_POINTS_PER_SIDE = 32
_MIN_PREDICTED_IOU = 0.88
_MIN_STABILITY = 0.95
_STABILITY_OFFSET = 1.0
_MAX_BOX_IOU = 0.7
_MIN_REGION_AREA = 100
# Where covered points are skipped: after a round. Their number is limited so that no image takes
# much longer than the others.
_POINTS_IN_ROUND = 16
_MAX_ROUNDS = 10
# More are slower on CPUs: for tensors above 32 MiB, the C library asks the system for memory again.
_POINTS_AT_ONCE = 4
# Of the scaled image, in each direction, to one logit.
_LOGIT_PIXELS = 4
_PIXEL_MEAN = (123.675, 116.28, 103.53)
_PIXEL_STD = (58.395, 57.12, 57.375)


class Candidates(NamedTuple):
    """Masks before they are compared with each other.

    Attributes:
        logits: (M, rows, columns), a quarter of the scaled image's size.
        predicted_iou, stability: (M,).
    """

    logits: Tensor
    predicted_iou: Tensor
    stability: Tensor


@torch.no_grad()
def find_masks(
    model: Any, image: NDArray[np.uint8], skip_covered: bool = True
) -> Iterator[FoundMask]:
    """Masks (H, W) bool of an image (H, W, 3) RGB, those that the model believes in most first.

    Args:
        model: transformers' ``SamModel``.
        image: scaled so that its longer side is that of the model's square.
        skip_covered: skip points that a mask of another point covers, as they would mostly find it
            again, and stop after 160; False for the published 32 x 32 points.
    """
    side = model.config.prompt_encoder_config.image_size
    scale = side / max(image.shape[:2])
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    features = model.get_image_embeddings(_prepare(image, (height, width), side).to(model.device))
    found = _ask_grid(PointDecoder(model, features), (height, width), skip_covered)
    boxes = masks_to_boxes(found.logits > 0)
    boxes[:, 2:] += 1  # to the end of the last pixel
    for index in nms(boxes, found.predicted_iou, _MAX_BOX_IOU).tolist():
        mask = _enlarge(found.logits[index], (height, width), image.shape[:2])
        mask = remove_small_regions(mask, _MIN_REGION_AREA)
        if mask.any():
            predicted_iou, stability = (values[index].item() for values in found[1:])
            yield FoundMask(mask, min(predicted_iou, 1.0), stability)


def stability_scores(logits: Tensor) -> Tensor:
    """IoU (M,) of what remains of logits (M, h, w) above a higher and above a lower threshold."""
    inner = (logits > _STABILITY_OFFSET).sum(dim=(1, 2))
    outer = (logits > -_STABILITY_OFFSET).sum(dim=(1, 2))
    return inner / outer.clamp(min=1)


def remove_small_regions(mask: NDArray[np.bool_], area: int) -> NDArray[np.bool_]:
    """Fill the holes of a mask (H, W) below an area in pixels, then drop such regions of it."""
    for value in (False, True):
        regions, _ = ndimage.label(mask == value, np.ones((3, 3)))
        is_small = np.bincount(regions.ravel()) < area
        is_small[0] = False  # what is not of this value
        mask = mask ^ is_small[regions]
    return mask


def _prepare(image: NDArray[np.uint8], size: tuple[int, int], side: int) -> Tensor:
    """Normalized pixels (1, 3, side, side) of the scaled image, with zeros around."""
    scaled = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(scaled)).permute(2, 0, 1)  # (h, w, 3) -> (3, h, w)
    pixels = normalize(pixels.float(), list(_PIXEL_MEAN), list(_PIXEL_STD))
    return F.pad(pixels, (0, side - size[1], 0, side - size[0]))[None]


def _ask_grid(decoder: PointDecoder, size: tuple[int, int], skip_covered: bool) -> Candidates:
    """The candidates of all points that are asked about."""
    shape = math.ceil(size[0] / _LOGIT_PIXELS), math.ceil(size[1] / _LOGIT_PIXELS)
    covered = torch.zeros(shape, dtype=torch.bool, device=decoder.device)
    points, rounds = _grid(*size).to(decoder.device), []
    while len(points):
        asked, points = points[:_POINTS_IN_ROUND], points[_POINTS_IN_ROUND:]
        rounds.append(_join([_ask(decoder, p, shape) for p in asked.split(_POINTS_AT_ONCE)]))
        if skip_covered:
            covered |= (rounds[-1].logits > 0).any(dim=0)
            columns, rows = (points / _LOGIT_PIXELS).long().unbind(dim=1)
            left = (_MAX_ROUNDS - len(rounds)) * _POINTS_IN_ROUND
            points = points[~covered[rows, columns]][:left]
    return _join(rounds)


def _join(parts: list[Candidates]) -> Candidates:
    return Candidates(*map(torch.cat, zip(*parts, strict=True)))


def _grid(height: int, width: int) -> Tensor:
    """x and y (P, 2) of the points, in an order that is random but always the same."""
    steps = (torch.arange(_POINTS_PER_SIDE) + 0.5) / _POINTS_PER_SIDE
    points = torch.cartesian_prod(steps * width, steps * height)
    return points[torch.randperm(len(points), generator=torch.Generator().manual_seed(0))]


def _ask(decoder: PointDecoder, points: Tensor, shape: tuple[int, int]) -> Candidates:
    """The candidates (M, *shape) of some points that the two thresholds leave."""
    answers = decoder.attend(points)
    is_likely = answers.predicted_iou > _MIN_PREDICTED_IOU  # (P, 3)
    has_mask = is_likely.any(dim=1)
    logits = decoder.masks(answers.select(has_mask), shape)[is_likely[has_mask]]
    stability = stability_scores(logits)
    is_stable = stability > _MIN_STABILITY
    predicted_iou = answers.predicted_iou[is_likely]
    return Candidates(logits[is_stable], predicted_iou[is_stable], stability[is_stable])


def _enlarge(logits: Tensor, scaled: tuple[int, int], size: tuple[int, ...]) -> NDArray[np.bool_]:
    """The mask of logits at the image's size, through that of the scaled image, as published."""
    logits = F.interpolate(logits[None, None], scale_factor=_LOGIT_PIXELS, mode="bilinear")
    logits = F.interpolate(logits[..., : scaled[0], : scaled[1]], size, mode="bilinear")
    mask: NDArray[np.bool_] = (logits[0, 0] > 0).cpu().numpy()
    return mask
