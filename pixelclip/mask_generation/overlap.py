"""How well M generated masks of an image agree with its N regions in a data set."""

import os
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from tqdm import tqdm

from pixelclip.data.images import ImageReadError, read_rgb_image
from pixelclip.data.sa1b import load_sa1b
from pixelclip.data.sa1b_files import (
    CorruptRecordError,
    parse_mask_rles,
    read_annotation_bytes,
    read_image_bytes,
)
from pixelclip.mask_generation.base_generator import BaseGenerator
from pixelclip.mask_generation.workers import choose_devices, run_tasks

# The overlap from which on a region counts as found.
_FOUND = 0.5

Code = dict[str, Any]


class OverlapReport(NamedTuple):
    """Agreement of generated masks with the regions of a data set's images.

    Attributes:
        skipped: images that could not be read, or whose regions could not.
        mean_best_overlap: mean over all regions of the highest intersection over union that a mask
            has with the region; ``found`` is the share of the regions where it is at least 0.5.
        seconds_per_image: of the generator in one process.
    """

    images: int
    regions: int
    skipped: int
    mean_best_overlap: float
    found: float
    masks_per_image: float
    seconds_per_image: float

    def __str__(self) -> str:
        return (
            f"{self.regions} regions of {self.images} images ({self.skipped} could not be read): "
            f"mean best overlap {self.mean_best_overlap:.3f}, {self.found:.1%} found with at least "
            f"{_FOUND}; {self.masks_per_image:.0f} masks and {self.seconds_per_image:.2f} s for an "
            "image."
        )


def measure_overlap(
    root: str | os.PathLike[str], generator: BaseGenerator, num_workers: int | None = None
) -> OverlapReport:
    """Generate masks for the images of a folder in SA-1B's layout and compare them with its own.

    Raises:
        FileNotFoundError: there is no image with masks.
        ValueError: none of them could be read, or the generator cannot be loaded.
    """
    records = load_sa1b(root)
    devices = choose_devices(bool(generator.default_model), num_workers)
    outcomes = run_tasks(partial(_compare, generator), records, devices)
    compared = [one for one in tqdm(outcomes, "overlap", len(records)) if one is not None]
    if not compared:
        raise ValueError(f"None of the {len(records)} images of {root} could be read.")
    best, counts, seconds = zip(*compared, strict=True)
    overlaps = np.concatenate(best)
    return OverlapReport(
        images=len(compared),
        regions=len(overlaps),
        skipped=len(records) - len(compared),
        mean_best_overlap=float(overlaps.mean()),
        found=float((overlaps >= _FOUND).mean()),
        masks_per_image=float(np.mean(counts)),
        seconds_per_image=float(np.mean(seconds)),
    )


def _compare(
    generator: BaseGenerator, record: Mapping[str, Any], device: torch.device
) -> tuple[NDArray[np.float64], int, float] | None:
    """Best overlaps (N,), the number of masks and the seconds; None for a corrupt record."""
    try:
        pixels = read_rgb_image(read_image_bytes(record))
        regions = parse_mask_rles(read_annotation_bytes(record))
    except (CorruptRecordError, ImageReadError):
        return None
    if any(tuple(region["size"]) != pixels.shape[:2] for region in regions):
        return None
    generator.load(device)
    start = time.perf_counter()
    found = generator.generate(pixels)
    masks = [coco_mask.encode(np.asfortranarray(one.mask, np.uint8)) for one in found]
    seconds = time.perf_counter() - start
    for region in regions:
        if isinstance(region["counts"], list):
            region.update(coco_mask.frPyObjects(region, *pixels.shape[:2]))
    return best_overlaps(masks, regions), len(masks), seconds


def best_overlaps(masks: list[Code], regions: list[Code]) -> NDArray[np.float64]:
    """For each region (N,) the highest intersection over union with a mask, 0 without masks.

    Both are COCO's run-length codes of one size with compressed counts, M and N of them.
    """
    if not masks:
        return np.zeros(len(regions))
    return coco_mask.iou(masks, regions, [0] * len(regions)).max(axis=0)  # (M, N) -> (N,)
