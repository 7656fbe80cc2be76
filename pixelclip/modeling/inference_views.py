"""Which views of a test image the encoder sees, and how their scores become one map.

Shapes: C classes; an image of H x W pixels; an output of out_h x out_w pixels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelclip.modeling.bilinear_patch import Region, Size, resize_patch, source_range
from pixelclip.modeling.mask_smoothing import SmoothingMasks, pool_scores, resize_owner

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


class View(NamedTuple):
    """What the encoder sees: pixels (3, h, w), the output's region they show, and how."""

    pixels: Tensor
    region: Region
    is_flipped: bool

    def without_pixels(self) -> "View":
        """All that is needed to merge its scores, in little memory."""
        return self._replace(pixels=self.pixels.new_empty((len(self.pixels), 0, 0)))


class ScoredImage(NamedTuple):
    """What the functions that merge or label views take, of one image.

    Attributes:
        views: together they show every pixel.
        scores: of each view, (C, h, w) at any resolution.
        output_size: (out_h, out_w) of the maps that can be made of them.
        masks: inside which scores are averaged; None leaves each pixel its own.
    """

    views: Sequence[View]
    scores: Sequence[Tensor]
    output_size: Size
    masks: SmoothingMasks | None = None


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


def merge_views(
    views: Sequence[View],
    scores: Sequence[Tensor],
    output_size: Size,
    masks: SmoothingMasks | None = None,
) -> Tensor:
    """Mean score (C, out_h, out_w) of every pixel over the views that show it.

    Args:
        views: of one image; together they show every pixel.
        scores: of each view, (C, h, w) at any resolution.
        output_size: (out_h, out_w).
        masks: the pixels that a mask owns get the mean score of the pixels in it; None for no
            masks.
    """
    merged = scores[0].new_empty((*output_size, len(scores[0])))
    scores = _turn_back(views, scores)
    # A GPU does all at once; on a CPU that would need three times the memory of the result.
    for tile in _tiles(output_size, max(output_size) if merged.is_cuda else 128):
        top, left, bottom, right = tile
        merged[top:bottom, left:right] = _merge_tile(views, scores, tile).permute(1, 2, 0)
    if masks is not None:
        pooled, owner = _pool(views, scores, output_size, masks)
        for row, owners in zip(merged, owner, strict=True):  # all at once would hold it twice
            row[owners >= 0] = pooled[owners[owners >= 0]]
    return merged.permute(2, 0, 1)  # (out_h, out_w, C) -> (C, out_h, out_w)


def label_views(
    views: Sequence[View],
    scores: Sequence[Tensor],
    output_size: Size,
    masks: SmoothingMasks | None = None,
) -> Tensor:
    """Class (out_h, out_w) int64 of the best mean score of every pixel, the first one of equals.

    Equals ``merge_views(...).argmax(dim=0)`` to the last pixel, see :func:`find_best_classes`.
    """
    return find_best_classes(views, scores, output_size, masks)[0]


def find_best_classes(
    views: Sequence[View],
    scores: Sequence[Tensor],
    output_size: Size,
    masks: SmoothingMasks | None = None,
) -> tuple[Tensor, Tensor]:
    """Class (out_h, out_w) int64 of the best mean score of every pixel, and that score.

    Equals ``merge_views(...).max(dim=0)`` to the last pixel. Tile by tile, classes are left out
    that cannot be best in it, so that the time and memory are those of the few that can.
    """
    labels = torch.empty(output_size, dtype=torch.int64, device=scores[0].device)
    best = torch.empty(output_size, dtype=scores[0].dtype, device=scores[0].device)
    scores = _turn_back(views, scores)
    # The smaller a tile, the fewer classes are possible in it; a GPU is better at larger ones.
    for tile in _tiles(output_size, 256 if labels.is_cuda else 128):
        classes = _possible_classes(views, scores, tile)
        merged = _merge_tile(views, [of_view[classes] for of_view in scores], tile)
        top, left, bottom, right = tile
        values, indices = merged.max(dim=0)
        labels[top:bottom, left:right] = classes[indices]
        best[top:bottom, left:right] = values
    if masks is not None:
        pooled, owner = _pool(views, scores, output_size, masks)
        of_masks, classes = pooled.max(dim=1)
        owned = owner[owner >= 0]
        labels[owner >= 0], best[owner >= 0] = classes[owned], of_masks[owned]
    return labels, best


def _pool(
    views: Sequence[View], scores: Sequence[Tensor], output_size: Size, masks: SmoothingMasks
) -> tuple[Tensor, Tensor]:
    """Mean scores (N, C) of masks, and the mask (out_h, out_w) that owns each pixel, or -1."""
    regions = [view.region for view in views]
    pooled = pool_scores(scores, regions, output_size, masks.masks)
    return pooled, resize_owner(masks.owner, output_size)


def _turn_back(views: Sequence[View], scores: Sequence[Tensor]) -> list[Tensor]:
    """Scores of mirrored views, mirrored again."""
    return [
        of_view.flip(-1) if view.is_flipped else of_view
        for view, of_view in zip(views, scores, strict=True)
    ]


def _tiles(size: Size, side: int) -> Iterator[Region]:
    """Squares of a side, smaller ones at the ends, that make up (height, width) pixels."""
    height, width = size
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield Region(top, left, min(top + side, height), min(left + side, width))


def _merge_tile(views: Sequence[View], scores: Sequence[Tensor], tile: Region) -> Tensor:
    """Mean score (C, R, S) of the pixels of a tile over the views that show them."""
    if len(views) == 1:
        return resize_patch(scores[0], views[0].region.size, tile)
    total = scores[0].new_zeros((len(scores[0]), *tile.size))
    count = scores[0].new_zeros(tile.size)
    for view, of_view in zip(views, scores, strict=True):
        shown = view.region.intersect(tile)
        if 0 in shown.size:
            continue
        patch = resize_patch(of_view, view.region.size, shown.relative_to(view.region))
        top, left, bottom, right = shown.relative_to(tile)
        total[:, top:bottom, left:right] += patch
        count[top:bottom, left:right] += 1
    return total / count


def _possible_classes(views: Sequence[View], scores: Sequence[Tensor], tile: Region) -> Tensor:
    """Ascending indices of the classes that may be best at a pixel of a tile.

    Interpolated and mean scores lie between the lowest and the highest score that they are made of.
    """
    lowest, highest = [], []
    for view, of_view in zip(views, scores, strict=True):
        shown = view.region.intersect(tile)
        if 0 not in shown.size:
            area = _score_area(of_view, view.region, shown)
            lowest.append(area.amin(dim=(1, 2)))
            highest.append(area.amax(dim=(1, 2)))
    low, high = torch.stack(lowest).amin(dim=0), torch.stack(highest).amax(dim=0)  # (C,) each
    # Far above the rounding error of a mean of interpolated scores.
    margin = 100 * torch.finfo(low.dtype).eps * torch.maximum(low.abs(), high.abs()).max()
    # Written so that a NaN, which is best of all for argmax, is possible.
    is_beaten = high < low.max() - margin
    return torch.nonzero(~is_beaten)[:, 0]


def _score_area(scores: Tensor, region: Region, shown: Region) -> Tensor:
    """The part of a view's scores (C, h, w) that makes the shown part of its region."""
    top, left, bottom, right = shown.relative_to(region)
    rows = source_range(scores.shape[1], region.size[0], top, bottom)
    columns = source_range(scores.shape[2], region.size[1], left, right)
    return scores[:, rows[0] : rows[1], columns[0] : columns[1]]


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
