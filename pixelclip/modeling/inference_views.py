"""Which views of a test image the encoder sees, and how their scores become one map.

Shapes: C classes; an image of H x W pixels; an output of out_h x out_w pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]

INFERENCE_MODES = ("whole", "keep_aspect", "sliding_window")


@dataclass(frozen=True)
class InferenceMode:
    """How a test image is shown to the encoder.

    Args:
        name: "whole": resized to the encoder's resolution, aspect ratio not kept (the published
            protocol); "keep_aspect": resized so that its short side is the resolution's; or
            "sliding_window": overlapping square windows, each resized to the resolution.
        window_size: side of a window in pixels of the test image.
        window_stride: distance between neighbouring windows in pixels.
        flip: average with the scores of the mirrored image.

    Raises:
        ValueError: an unknown name, or a stride outside 1..window_size.
    """

    name: str = "whole"
    window_size: int = 320
    window_stride: int = 160
    flip: bool = False

    def __post_init__(self) -> None:
        if self.name not in INFERENCE_MODES:
            raise ValueError(
                f"TEST.INFERENCE_MODE is {self.name!r}; it must be one of "
                f"{', '.join(INFERENCE_MODES)}."
            )
        if not 1 <= self.window_stride <= self.window_size:
            raise ValueError(
                f"TEST.WINDOW_STRIDE is {self.window_stride}; it must lie between 1 and "
                f"TEST.WINDOW_SIZE, {self.window_size}, so that no pixel is left out."
            )


class Region(NamedTuple):
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right``, the latter ones exclusive."""

    top: int
    left: int
    bottom: int
    right: int

    def scale(self, source: Size, target: Size) -> "Region":
        """The same region of an image of ``source`` pixels when it has ``target`` pixels."""
        vertical, horizontal = target[0] / source[0], target[1] / source[1]
        return Region(
            round(self.top * vertical),
            round(self.left * horizontal),
            round(self.bottom * vertical),
            round(self.right * horizontal),
        )


class View(NamedTuple):
    """What the encoder sees: pixels (3, h, w), the output's region they show, and how."""

    pixels: Tensor
    region: Region
    is_flipped: bool


def make_views(
    image: Tensor, output_size: Size, mode: InferenceMode, resolution: Size, stride: int
) -> list[View]:
    """Cut and resize the views of one image.

    Args:
        image: (3, H, W), normalised.
        output_size: (out_h, out_w) of the label map.
        mode: see :class:`InferenceMode`.
        resolution: (height, width) that the encoder is made for.
        stride: the encoder's stride in pixels, of which the sides of a view are multiples.
    """
    size = (image.shape[1], image.shape[2])
    windows = [Region(0, 0, *size)]
    if mode.name == "sliding_window":
        windows = place_windows(size, mode.window_size, mode.window_stride)
    views = []
    for window in windows:
        pixels = image[:, window.top : window.bottom, window.left : window.right]
        view_size = resolution
        if mode.name == "keep_aspect":
            view_size = _size_with_short_side(size, min(resolution), stride)
        pixels = F.interpolate(pixels[None], view_size, mode="bilinear", align_corners=False)[0]
        region = window.scale(size, output_size)
        views.append(View(pixels, region, is_flipped=False))
        if mode.flip:
            views.append(View(pixels.flip(-1), region, is_flipped=True))
    return views


def place_windows(size: Size, window_size: int, window_stride: int) -> list[Region]:
    """Windows that cover an image of (height, width) pixels; at the far sides they end with it."""
    height, width = (min(window_size, side) for side in size)
    return [
        Region(top, left, top + height, left + width)
        for top in _window_starts(size[0], height, window_stride)
        for left in _window_starts(size[1], width, window_stride)
    ]


def _window_starts(side: int, window: int, stride: int) -> list[int]:
    return [*range(0, side - window, stride), side - window]


def _size_with_short_side(size: Size, short_side: int, stride: int) -> Size:
    scale = short_side / min(size)
    height, width = (max(1, round(side * scale / stride)) * stride for side in size)
    return height, width


def merge_views(views: Sequence[View], scores: Sequence[Tensor], output_size: Size) -> Tensor:
    """Mean score (C, out_h, out_w) of every pixel over the views that show it.

    Args:
        views: of one image.
        scores: of each view, (C, h, w) at any resolution.
        output_size: (out_h, out_w).
    """
    if len(views) == 1:
        return _resize(scores[0], output_size)
    total = scores[0].new_zeros((len(scores[0]), *output_size))
    count = scores[0].new_zeros(output_size)
    for view, view_scores in zip(views, scores, strict=True):
        top, left, bottom, right = view.region
        view_scores = view_scores.flip(-1) if view.is_flipped else view_scores
        total[:, top:bottom, left:right] += _resize(view_scores, (bottom - top, right - left))
        count[top:bottom, left:right] += 1
    return total / count


def _resize(scores: Tensor, size: Size) -> Tensor:
    if 0 in size:  # a window that is thinner than a pixel of a small output
        return scores.new_zeros((len(scores), *size))
    return F.interpolate(scores[None], size, mode="bilinear", align_corners=False)[0]


def batch_by_size(views: Sequence[View], limit: int) -> list[list[int]]:
    """Indices of the views in batches of one size and at most ``limit`` views each."""
    by_size: dict[torch.Size, list[int]] = {}
    for index, view in enumerate(views):
        by_size.setdefault(view.pixels.shape, []).append(index)
    return [
        indices[first : first + limit]
        for indices in by_size.values()
        for first in range(0, len(indices), limit)
    ]
