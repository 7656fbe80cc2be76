"""How well generated masks agree with those of a data set, such as people's.

Shapes: N regions of the data set, M generated masks of a photograph.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from tqdm import tqdm

from pixelclip.data.corrupt_record import BrokenRecordError
from pixelclip.data.image_reading import ImageReadError, read_rgb_image
from pixelclip.data.mask_annotations import parse_mask_rles
from pixelclip.data.record_reading import read_annotation_bytes, read_image_bytes
from pixelclip.data.sa1b import load_sa1b
from pixelclip.mask_generation.generate import choose_devices
from pixelclip.mask_generation.generators import GeneratorChoice
from pixelclip.mask_generation.worker_pool import run_tasks

# From which overlap on a region counts as found.
_FOUND = 0.5


@dataclass(frozen=True)
class OverlapReport:
    """Agreement of generated masks with a data set's regions.

    Attributes:
        photographs, regions: how many were compared.
        skipped: photographs or regions that could not be read.
        mean_best_overlap: mean over all regions of the highest intersection over union that a mask
            has with the region.
        found: share of the regions for which it is at least 0.5.
        masks_per_photograph: mean number of generated masks.
        seconds_per_photograph: mean time of the generator in one process.
    """

    photographs: int
    regions: int
    skipped: int
    mean_best_overlap: float
    found: float
    masks_per_photograph: float
    seconds_per_photograph: float

    def __str__(self) -> str:
        return (
            f"{self.regions} regions of {self.photographs} photographs ({self.skipped} could not "
            f"be read): mean best overlap {self.mean_best_overlap:.3f}, {self.found:.1%} found "
            f"with at least {_FOUND}; {self.masks_per_photograph:.0f} masks and "
            f"{self.seconds_per_photograph:.2f} s for a photograph."
        )


def measure_overlap(
    root: str | os.PathLike[str], choice: GeneratorChoice, num_workers: int | None = None
) -> OverlapReport:
    """Generate masks for a data set's photographs and compare them with its own.

    Args:
        root: folder in SA-1B's layout, see ``pixelclip/data/sa1b.py``.
        choice: the generator.
        num_workers: processes, see :func:`choose_devices`.

    Raises:
        FileNotFoundError: there is no photograph with masks.
        ValueError: none of them could be read, or the generator cannot be built.
    """
    records = load_sa1b(root)
    outcomes = run_tasks(partial(_Comparison, choice), records, choose_devices(choice, num_workers))
    compared = [one for one in tqdm(outcomes, "overlap", len(records)) if one is not None]
    if not compared:
        raise ValueError(f"None of the {len(records)} photographs of {root} could be read.")
    overlaps = np.concatenate([overlap for overlap, _, _ in compared])
    return OverlapReport(
        photographs=len(compared),
        regions=len(overlaps),
        skipped=len(records) - len(compared),
        mean_best_overlap=float(overlaps.mean()),
        found=float((overlaps >= _FOUND).mean()),
        masks_per_photograph=float(np.mean([count for _, count, _ in compared])),
        seconds_per_photograph=float(np.mean([seconds for _, _, seconds in compared])),
    )


def best_overlaps(
    masks: Sequence[Mapping[str, Any]], regions: Sequence[Mapping[str, Any]]
) -> NDArray[np.float64]:
    """For each region (N,) the highest intersection over union with a mask, 0 without masks.

    Args:
        masks: M COCO run-length codes with compressed counts.
        regions: N of them, of the same size.
    """
    if not masks or not regions:
        return np.zeros(len(regions))
    is_crowd = [0] * len(regions)
    return coco_mask.iou(list(masks), list(regions), is_crowd).max(axis=0)  # (M, N) -> (N,)


class _Comparison:
    """Generates the masks of a record and compares them with its own."""

    def __init__(self, choice: GeneratorChoice, device: torch.device) -> None:
        self._generator = choice.build(device)

    def __call__(self, record: Mapping[str, Any]) -> tuple[NDArray[np.float64], int, float] | None:
        """Overlaps (N,), the number of masks and the seconds; None for a broken record."""
        try:
            pixels = read_rgb_image(read_image_bytes(record))
            regions = parse_mask_rles(read_annotation_bytes(record))
        except (BrokenRecordError, ImageReadError):
            return None
        size = (pixels.shape[0], pixels.shape[1])
        if any(tuple(region["size"]) != size for region in regions):
            return None
        start = time.perf_counter()
        found = [
            coco_mask.encode(np.asfortranarray(one.mask, np.uint8))
            for one in self._generator.generate(pixels)
        ]
        seconds = time.perf_counter() - start
        compressed = [_compress(region, size) for region in regions]
        return best_overlaps(found, compressed), len(found), seconds


def _compress(rle: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """A run-length code whose counts are no list."""
    return coco_mask.frPyObjects(rle, *size) if isinstance(rle["counts"], list) else rle
