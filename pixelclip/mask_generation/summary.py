"""How many masks a generator found, how much of the images they cover, and what they look like."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from pixelclip.data.images import read_rgb_image
from pixelclip.data.masks import torch_nearest
from pixelclip.data.rle import sample_masks
from pixelclip.data.sa1b_files import parse_mask_rles
from pixelclip.mask_generation.base_generator import shrink_image
from pixelclip.utils.visualization import ImageArray, draw_image_grid, overlay_masks, save_figure

# Of the contact sheet: images in a row, rows, and the longest side of an image in pixels.
_PER_ROW, _ROWS, _SIDE = 2, 4, 320
# More colors than these cannot be told apart; the smallest masks are then left out.
_MAX_MASKS = 256


class Outcome(NamedTuple):
    """What became of one image.

    Attributes:
        coverage: share of the image's pixels that at least one mask has.
        problem: why the image could not be read; else "".
        was_finished: an earlier run had made the masks.
    """

    num_masks: int = 0
    coverage: float = 0.0
    problem: str = ""
    was_finished: bool = False

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Outcome":
        """What the content of a JSON says that ``write_sa1b_annotation`` wrote."""
        codes = [one["segmentation"] for one in content["annotations"]]
        pixels = content["image"]["height"] * content["image"]["width"]
        covered = float(coco_mask.area(coco_mask.merge(codes))) if codes else 0.0
        return cls(len(codes), covered / pixels)


@dataclass(frozen=True)
class MaskSummary:
    """What became of all images.

    Attributes:
        finished_before: how many had their masks from earlier runs.
        without_masks: how many were read, and no mask found in them; training skips them.
        masks_per_image: mean, least, median and most, over those that could be read.
        coverage: mean share of the pixels that at least one mask has, over the same.
    """

    generator: dict[str, Any]
    images: int
    finished_before: int
    without_masks: int
    masks_per_image: dict[str, float]
    coverage: float
    skipped: tuple[str, ...]

    @classmethod
    def from_outcomes(cls, outcomes: Sequence[Outcome], generator: dict[str, Any]) -> "MaskSummary":
        """Put the outcomes together; where no image could be read, the numbers are 0."""
        read = [outcome for outcome in outcomes if not outcome.problem]
        counts = sorted(outcome.num_masks for outcome in read) or [0]
        mean, middle = fmean(counts), median(counts)
        return cls(
            generator,
            len(outcomes),
            sum(outcome.was_finished for outcome in outcomes),
            sum(not outcome.num_masks for outcome in read),
            {"mean": mean, "least": counts[0], "median": middle, "most": counts[-1]},
            fmean([outcome.coverage for outcome in read] or [0.0]),
            tuple(outcome.problem for outcome in outcomes if outcome.problem),
        )

    def to_json(self) -> str:
        """The content of ``summary.json``, which does not depend on how many runs it took."""
        content = asdict(self)
        del content["finished_before"]
        return json.dumps(content, indent=2)

    def __str__(self) -> str:
        masks = self.masks_per_image
        return "".join(f"skipped: {problem}\n" for problem in self.skipped) + (
            f"{self.images} images ({self.finished_before} were finished before), "
            f"{len(self.skipped)} of them could not be read, {self.without_masks} have no mask.\n"
            f"Masks per image: {masks['mean']:.1f} on average, {masks['least']} to "
            f"{masks['most']}, median {masks['median']:.0f}; they cover {self.coverage:.1%}."
        )


def write_contact_sheet(images: Sequence[tuple[Path, Path]], path: Path) -> None:
    """Write a PNG of up to eight images, evenly chosen of (image, JSON), each next to its masks."""
    if not images:
        return
    columns = min(_PER_ROW, len(images))
    count = min(_ROWS, len(images) // columns) * columns
    chosen = (images[index * len(images) // count] for index in range(count))
    cells = [cell for files in chosen for cell in _draw(*files)]
    width = 2 * columns
    rows = [cells[start : start + width] for start in range(0, len(cells), width)]
    save_figure(draw_image_grid(rows, ["image", "masks"] * columns, cell_width=_SIDE / 100), path)


def _draw(image: Path, annotation: Path) -> tuple[ImageArray, ImageArray]:
    """The image, and its masks in different colors."""
    pixels = read_rgb_image(image)
    small = shrink_image(pixels, _SIDE)
    rows, columns = (torch_nearest(pixels.shape[axis], small.shape[axis]) for axis in (0, 1))
    masks = sample_masks(parse_mask_rles(annotation.read_bytes()), rows, columns)
    largest = np.argsort(-masks.sum(axis=(1, 2)), kind="stable")[:_MAX_MASKS]
    return small, overlay_masks(small, masks[largest])
