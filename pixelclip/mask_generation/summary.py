"""How many masks a generator found, and how much of the photographs they cover."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from pixelclip.mask_generation.generators import GeneratorChoice


@dataclass(frozen=True)
class Outcome:
    """What became of one photograph.

    Attributes:
        num_masks: masks found.
        coverage: share of the photograph's pixels that at least one mask has.
        problem: why there are none, where the photograph could not be read; else "".
        was_finished: an earlier run had made them.
        source: what the JSON says of the file that they were found in; None if nothing.
    """

    num_masks: int = 0
    coverage: float = 0.0
    problem: str = ""
    was_finished: bool = False
    source: dict[str, int] | None = None


@dataclass(frozen=True)
class MaskSummary:
    """What became of all photographs; the field names are the keys of ``summary.json``.

    Attributes:
        generator: the fields of :class:`GeneratorChoice`.
        photographs: how many there are.
        finished_before: how many of them an earlier run had finished.
        without_masks: how many were read, and no mask found in them; training skips them.
        masks_per_photograph: mean, least, median and most, over those that could be read.
        coverage: mean share of the pixels that at least one mask has, over the same.
        skipped: one text for each photograph that could not be read.
    """

    generator: dict[str, Any]
    photographs: int
    finished_before: int
    without_masks: int
    masks_per_photograph: dict[str, float]
    coverage: float
    skipped: tuple[str, ...]

    def __str__(self) -> str:
        masks = self.masks_per_photograph
        lines = [
            f"{self.photographs} photographs ({self.finished_before} were finished before), "
            f"{len(self.skipped)} of them could not be read, {self.without_masks} have no mask.",
            f"Masks per photograph: {masks['mean']:.1f} on average, {masks['least']:.0f} to "
            f"{masks['most']:.0f}, median {masks['median']:.0f}; they cover {self.coverage:.1%}.",
        ]
        return "\n".join([*(f"skipped: {problem}" for problem in self.skipped), *lines])


def summarize(outcomes: Sequence[Outcome], choice: GeneratorChoice) -> MaskSummary:
    """Put the outcomes of all photographs together; without any that was read, figures are 0."""
    read = [outcome for outcome in outcomes if not outcome.problem]
    counts = [outcome.num_masks for outcome in read] or [0]
    return MaskSummary(
        generator=dataclasses.asdict(choice),
        photographs=len(outcomes),
        finished_before=sum(outcome.was_finished for outcome in outcomes),
        without_masks=sum(not outcome.num_masks for outcome in read),
        masks_per_photograph={
            "mean": float(np.mean(counts)),
            "least": float(min(counts)),
            "median": float(np.median(counts)),
            "most": float(max(counts)),
        },
        coverage=float(np.mean([outcome.coverage for outcome in read] or [0.0])),
        skipped=tuple(outcome.problem for outcome in outcomes if outcome.problem),
    )


def read_outcome(annotation: Path) -> Outcome:
    """What a JSON that ``write_sa1b_annotation`` wrote says of its photograph.

    Raises:
        OSError, ValueError, KeyError, TypeError: it is not there, or is no such file.
    """
    content = json.loads(annotation.read_bytes())
    codes = [one["segmentation"] for one in content["annotations"]]
    pixels = content["image"]["height"] * content["image"]["width"]
    covered = float(coco_mask.area(coco_mask.merge(codes))) if codes else 0.0
    return Outcome(len(codes), covered / pixels, source=content.get("source"))
