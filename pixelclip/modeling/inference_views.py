"""Views of a test image that the encoder sees, and how their scores become one map.

A label map needs the best class of each pixel only, so it is found tile by tile among the few
classes that can win in a tile: 2.5 times the speed of resizing all 171 classes of COCO-Stuff, in a
fraction of the memory. ``F.interpolate`` rounds differently with the number of channels; the
bilinear resizing here does not, so that label maps equal the argmax of all scores exactly.

Shapes: C classes; an image of H x W pixels; an output of out_h x out_w pixels; scores (C, h, w) of
each view at any resolution.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isqrt
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from torch import Tensor
from torch.nn import functional as F

from pixelclip.data.masks import torch_nearest
from pixelclip.modeling.image_encoder import DenseImageEncoder
from pixelclip.modeling.inference_masks import InferenceMasks, MaskSource, build_inference_masks
from pixelclip.modeling.mask_features import CropScorer, MaskFeatures, build_crop_scorer
from pixelclip.modeling.mask_pooling import pooling_weights
from pixelclip.modeling.text_classifier import TextClassifier
from pixelclip.utils.transfer import to_device

Size = tuple[int, int]

INFERENCE_MODES = ("whole", "keep_aspect", "sliding_window")

# Of all classes at the pixels of a tile, on a GPU.
_SCORES_PER_TILE = 2**24

# More views at a time would need more memory without being faster.
_VIEWS_PER_BATCH = 16


@dataclass(frozen=True)
class InferenceMode:
    """How a test image is shown to the encoder.

    Args:
        name: "whole": resized to the encoder's resolution, aspect ratio not kept (the published
            protocol); "keep_aspect": resized so that its short side is the resolution's; or
            "sliding_window": overlapping square windows, each resized to the resolution.
        window_size: side of a window in pixels of the test image.
        window_stride: distance between neighboring windows in pixels.
        flip: average with the scores of the horizontally flipped views.

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
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right``, the ends exclusive."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> Size:
        """(height, width), 0 where it is empty."""
        return max(0, self.bottom - self.top), max(0, self.right - self.left)

    def scale(self, source: Size, target: Size) -> "Region":
        """The same region of an image of ``source`` pixels when it has ``target`` pixels."""
        vertical, horizontal = target[0] / source[0], target[1] / source[1]
        factors = (vertical, horizontal, vertical, horizontal)
        return Region(*(round(edge * factor) for edge, factor in zip(self, factors, strict=True)))

    def intersect(self, other: "Region") -> "Region":
        """What both have in common; its size is 0 where that is nothing."""
        return Region(*map(max, self[:2], other[:2]), *map(min, self[2:], other[2:]))

    def relative_to(self, other: "Region") -> "Region":
        """The same region with rows and columns counted from another one's first."""
        starts = (other.top, other.left, other.top, other.left)
        return Region(*(edge - start for edge, start in zip(self, starts, strict=True)))


class View(NamedTuple):
    """What the encoder sees: pixels (3, h, w), and the region of the output that they show."""

    pixels: Tensor
    region: Region


class ScoredImage(NamedTuple):
    """The arguments of the functions that merge or label the views of one image.

    Attributes:
        regions: of the output, one per view; together they are all of it.
        scores: of each view, (C, h, w) at any resolution.
        output_size: (out_h, out_w) of the maps that can be made of them.
        masks: inside which scores are averaged; None leaves each pixel its own.
    """

    regions: Sequence[Region]
    scores: Sequence[Tensor]
    output_size: Size
    masks: InferenceMasks | None = None


@dataclass(frozen=True)
class InferenceViews:
    """Scores images through their views.

    Args:
        mode: which views.
        resolution: (height, width) to which a view is resized.
        feature_size: (height, width) on which classes are compared; more of it where a view is
            larger than the resolution.
        masks: gives the masks of an image inside which scores are averaged; None for no masks.
        crop_scorer: scores the masks of an image by their crops, too; None for no crops.
    """

    mode: InferenceMode
    resolution: Size
    feature_size: Size
    masks: MaskSource | None = None
    crop_scorer: CropScorer | None = None

    def score_images(
        self,
        images: Sequence[Tensor],
        batched_inputs: Sequence[Mapping[str, Any]],
        encoder: DenseImageEncoder,
        classifier: TextClassifier,
    ) -> list[ScoredImage]:
        """Scores of each image, whose views go through the encoder in batches.

        Args:
            images: (3, H, W), normalized.
            batched_inputs: of the images, with the ``height`` and ``width`` of the output (by
                default the image's) and what ``masks`` takes.
            encoder, classifier: the model's.
        """
        sizes = [
            (inputs.get("height", image.shape[1]), inputs.get("width", image.shape[2]))
            for image, inputs in zip(images, batched_inputs, strict=True)
        ]
        views = [
            make_views(image, size, self.mode, self.resolution, encoder.stride)
            for image, size in zip(images, sizes, strict=True)
        ]
        scores = iter(
            _score_by_size(
                [view for image_views in views for view in image_views],
                lambda pixels: self.score(pixels, encoder, classifier),
            )
        )
        return [
            ScoredImage(
                [view.region for view in image_views],
                list(islice(scores, len(image_views))),
                size,
                self._find_masks(inputs, image, classifier),
            )
            for inputs, image, image_views, size in zip(
                batched_inputs, images, views, sizes, strict=True
            )
        ]

    def _find_masks(
        self, inputs: Mapping[str, Any], image: Tensor, classifier: TextClassifier
    ) -> InferenceMasks | None:
        if self.masks is None:
            return None
        found = self.masks(inputs, image.device)
        if self.crop_scorer is None:
            return found
        return found._replace(crops=self.crop_scorer(image, found.masks, classifier))

    def score(
        self, pixels: Tensor, encoder: DenseImageEncoder, classifier: TextClassifier
    ) -> Tensor:
        """Scores (n, C, feature height, feature width) of normalized views (n, 3, h, w)."""
        if self.mode.flip:
            pixels = torch.cat([pixels, pixels.flip(-1)])
        features = encoder(pixels).permute(0, 3, 1, 2)  # (n, d, h / stride, w / stride)
        size = [
            round(test * side / usual)
            for test, side, usual in zip(
                self.feature_size, pixels.shape[2:], self.resolution, strict=True
            )
        ]
        features = F.interpolate(features, size, mode="bilinear", align_corners=False)
        scores = classifier.scores(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if self.mode.flip:
            scores, flipped_scores = scores.chunk(2)
            scores = (scores + flipped_scores.flip(-1)) / 2
        return scores


def build_inference_views(cfg: CfgNode, mask_features: MaskFeatures) -> InferenceViews:
    """Build what ``TEST`` and ``MODEL.PIXELCLIP.TEST_*`` say.

    Raises:
        ValueError, ModuleNotFoundError: see :class:`InferenceMode`, :func:`build_inference_masks`
            and :func:`build_crop_scorer`.
    """
    test, node = cfg.TEST, cfg.MODEL.PIXELCLIP
    return InferenceViews(
        InferenceMode(test.INFERENCE_MODE, test.WINDOW_SIZE, test.WINDOW_STRIDE, test.FLIP),
        tuple(cfg.MODEL.CLIP.RESOLUTION),
        tuple(node.TEST_FEATURE_SIZE),
        build_inference_masks(cfg),
        build_crop_scorer(cfg, mask_features),
    )


def make_views(
    image: Tensor, output_size: Size, mode: InferenceMode, resolution: Size, stride: int
) -> list[View]:
    """Cut and resize the views of one image.

    Args:
        image: (3, H, W), normalized.
        output_size: (out_h, out_w) of the label map.
        mode: see :class:`InferenceMode`.
        resolution: (height, width) that the encoder is made for.
        stride: the encoder's stride in pixels, of which the sides of a view are multiples.
    """
    size = (image.shape[1], image.shape[2])
    windows = [Region(0, 0, *size)]
    if mode.name == "sliding_window":
        windows = place_windows(size, mode.window_size, mode.window_stride)
    if mode.name == "keep_aspect":
        scale = min(resolution) / min(size)
        height, width = (max(1, round(side * scale / stride)) * stride for side in size)
        resolution = (height, width)
    return [
        View(
            F.interpolate(
                image[None, :, window.top : window.bottom, window.left : window.right],
                resolution,
                mode="bilinear",
                align_corners=False,
            )[0],
            window.scale(size, output_size),
        )
        for window in windows
    ]


def place_windows(size: Size, window_size: int, window_stride: int) -> list[Region]:
    """Windows that cover an image of (height, width) pixels; at the far sides they end with it."""
    height, width = (min(window_size, side) for side in size)
    tops, lefts = (
        [*range(0, side - window, window_stride), side - window]
        for side, window in zip(size, (height, width), strict=True)
    )
    return [Region(top, left, top + height, left + width) for top in tops for left in lefts]


def _score_by_size(views: Sequence[View], score: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Scores (C, h', w') of each view; views of equal size are scored in batches."""
    scores: dict[int, Tensor] = {}
    for size in {view.pixels.shape for view in views}:
        same = [index for index, view in enumerate(views) if view.pixels.shape == size]
        for first in range(0, len(same), _VIEWS_PER_BATCH):
            batch = same[first : first + _VIEWS_PER_BATCH]
            batch_scores = score(torch.stack([views[index].pixels for index in batch]))
            scores.update(zip(batch, batch_scores, strict=True))
    return [scores[index] for index in range(len(views))]


def merge_views(
    regions: Sequence[Region],
    scores: Sequence[Tensor],
    output_size: Size,
    masks: InferenceMasks | None = None,
) -> Tensor:
    """Mean score (C, out_h, out_w) of every pixel over the views that show it.

    For the arguments see :class:`ScoredImage`; the pixels of a mask get the mean score of the
    pixels in it, mixed with its crop's, or the mean of several masks.
    """
    merged = scores[0].new_empty((*output_size, len(scores[0])))
    # A GPU does all at once; on a CPU that would need three times the memory of the result.
    for tile in _tiles(output_size, max(output_size) if merged.is_cuda else 128):
        top, left, bottom, right = tile
        merged[top:bottom, left:right] = _merge_tile(regions, scores, tile).permute(1, 2, 0)
    if masks is not None:
        pooled = pool_scores(scores, regions, output_size, masks.masks)  # (N, C)
        pieces = masks.score_pieces(pooled)  # (R, C)
        index_map = _resize_nearest(masks.index_map, output_size)
        for row, indices in zip(merged, index_map, strict=True):  # all at once would hold it twice
            row.copy_(_replace_inside(row, pieces, indices))
    return merged.permute(2, 0, 1)  # (out_h, out_w, C) -> (C, out_h, out_w)


def find_best_classes(
    regions: Sequence[Region],
    scores: Sequence[Tensor],
    output_size: Size,
    masks: InferenceMasks | None = None,
) -> tuple[Tensor, Tensor]:
    """Class (out_h, out_w) int64 of the best mean score of every pixel, and that score.

    Equals ``merge_views(...).max(dim=0)`` exactly, in the time and memory of the classes that can
    be best in each tile.
    """
    labels = torch.empty(output_size, dtype=torch.int64, device=scores[0].device)
    best = torch.empty(output_size, dtype=scores[0].dtype, device=scores[0].device)
    # The smaller a tile, the fewer classes are possible in it.
    side = isqrt(_SCORES_PER_TILE // len(scores[0])) if labels.is_cuda else 128
    for tile in _tiles(output_size, max(1, side)):
        classes = _possible_classes(regions, scores, tile)
        merged = _merge_tile(regions, [view_scores[classes] for view_scores in scores], tile)
        top, left, bottom, right = tile
        values, indices = merged.max(dim=0)
        labels[top:bottom, left:right] = classes[indices]
        best[top:bottom, left:right] = values
    if masks is not None:
        pooled = pool_scores(scores, regions, output_size, masks.masks)  # (N, C)
        piece_scores, piece_classes = masks.score_pieces(pooled).max(dim=1)
        index_map = _resize_nearest(masks.index_map, output_size)
        labels = _replace_inside(labels, piece_classes, index_map)
        best = _replace_inside(best, piece_scores, index_map)
    return labels, best


def _replace_inside(values: Tensor, pieces: Tensor, index_map: Tensor) -> Tensor:
    """Values (..., C) or (...), and where the index map (...) is not -1 those of pieces (R, C)."""
    if not len(pieces):
        return values
    # Indexing with booleans would make the host wait for a GPU.
    inside = (index_map >= 0).view(*index_map.shape, *[1] * (values.ndim - index_map.ndim))
    return torch.where(inside, pieces[index_map.clamp(min=0)], values)


def _tiles(size: Size, side: int) -> Iterator[Region]:
    """Squares of a side, smaller ones at the ends, that make up (height, width) pixels."""
    for top in range(0, size[0], side):
        for left in range(0, size[1], side):
            yield Region(top, left, min(top + side, size[0]), min(left + side, size[1]))


def _merge_tile(regions: Sequence[Region], scores: Sequence[Tensor], tile: Region) -> Tensor:
    """Mean score (C, R, S) of the pixels of a tile over the views that show them."""
    if len(regions) == 1:  # of the whole output
        return resize_patch(scores[0], regions[0].size, tile)
    total = scores[0].new_zeros((len(scores[0]), *tile.size))
    count = scores[0].new_zeros(tile.size)
    for region, view_scores in zip(regions, scores, strict=True):
        shown = region.intersect(tile)
        if 0 in shown.size:
            continue
        patch = resize_patch(view_scores, region.size, shown.relative_to(region))
        top, left, bottom, right = shown.relative_to(tile)
        total[:, top:bottom, left:right] += patch
        count[top:bottom, left:right] += 1
    return total / count


def _possible_classes(regions: Sequence[Region], scores: Sequence[Tensor], tile: Region) -> Tensor:
    """Ascending indices of the classes that may be best at a pixel of a tile.

    Interpolated and mean scores lie between the lowest and the highest score that they are made of.
    On a GPU all are, for the host would wait for the number of possible ones.
    """
    if scores[0].is_cuda:
        return torch.arange(len(scores[0]), device=scores[0].device)
    lowest, highest = [], []
    for region, view_scores in zip(regions, scores, strict=True):
        shown = region.intersect(tile)
        if 0 in shown.size:
            continue
        top, left, bottom, right = shown.relative_to(region)
        rows = _neighbors(view_scores.shape[1], region.size[0], top, bottom)
        columns = _neighbors(view_scores.shape[2], region.size[1], left, right)
        area = view_scores[:, rows[0][0] : rows[1][-1] + 1, columns[0][0] : columns[1][-1] + 1]
        lowest.append(area.amin(dim=(1, 2)))
        highest.append(area.amax(dim=(1, 2)))
    low, high = torch.stack(lowest).amin(dim=0), torch.stack(highest).amax(dim=0)  # (C,) each
    # Far above the rounding error of a mean of interpolated scores.
    margin = 100 * torch.finfo(low.dtype).eps * torch.maximum(low.abs(), high.abs()).max()
    # Written so that a NaN, which is best of all for argmax, is possible.
    return torch.nonzero(~(high < low.max() - margin))[:, 0]


def pool_scores(
    scores: Sequence[Tensor], regions: Sequence[Region], output_size: Size, masks: Tensor
) -> Tensor:
    """Mean score (N, C) of the pixels of each mask, a pixel's being the mean of all views of it.

    Nothing is upsampled: see ``mask_pooling.py``.

    Args:
        scores, regions, output_size: see :class:`ScoredImage`.
        masks: (N, Mh, Mw) bool, none of them empty.
    """
    size = (masks.shape[1], masks.shape[2])
    shown = [region.scale(output_size, size) for region in regions]
    count = scores[0].new_zeros(size)  # of the views that show each pixel of the masks
    for top, left, bottom, right in shown:
        count[top:bottom, left:right] += 1
    weights = masks.to(scores[0]) / count
    total = weights.new_zeros(len(masks), len(scores[0]))
    for view_scores, (top, left, bottom, right) in zip(scores, shown, strict=True):
        if top < bottom and left < right:
            grid = (view_scores.shape[1], view_scores.shape[2])
            positions = pooling_weights(weights[:, top:bottom, left:right], grid)  # (N, h, w)
            total += positions.flatten(1) @ view_scores.flatten(1).T
    return total / masks.sum(dim=(1, 2))[:, None]


def _resize_nearest(index_map: Tensor, size: Size) -> Tensor:
    rows, columns = (
        to_device(torch.from_numpy(torch_nearest(*sides)), index_map.device)
        for sides in zip(index_map.shape, size, strict=True)
    )
    return index_map[rows[:, None], columns]


def resize_patch(maps: Tensor, size: Size, patch: Region) -> Tensor:
    """A patch of maps (C, h, w) after bilinear resizing to ``size``, as (C, R, S).

    Equals ``F.interpolate(mode="bilinear", align_corners=False)`` but for rounding, and is the same
    for each channel and pixel no matter what else is computed with it.

    Args:
        maps: floating point.
        size: (H, W) to which all of the maps would be resized.
        patch: not empty, within H x W.
    """
    values = maps.permute(1, 2, 0)  # (h, w, C): neighboring channels are neighbors in memory
    for dim, start, stop in ((1, patch.left, patch.right), (0, patch.top, patch.bottom)):
        before, after, share = _neighbors(
            maps.shape[dim + 1], size[dim], start, stop, device=maps.device
        )
        share = share.to(maps.dtype).view((-1, 1) if dim else (-1, 1, 1))
        resized = values.index_select(dim, before) * (1 - share)
        values = resized.add_(values.index_select(dim, after) * share)
    return values.permute(2, 0, 1)  # (R, S, C) -> (C, R, S)


def _neighbors(
    length: int, new_length: int, start: int, stop: int, device: torch.device | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The two positions that each new position start..stop lies between, the second's share."""
    # Pixels are areas: the center of the new one is looked for between the centers of the old ones.
    position = torch.arange(start, stop, dtype=torch.float64, device=device)
    position = ((position + 0.5) * (length / new_length) - 0.5).clamp(0, length - 1)
    before = position.long()
    return before, (before + 1).clamp(max=length - 1), position - before
