"""PASCAL Context, validation set: 59 classes, and 60 with everything else as background.

The publishers' tool draws the labels so: one region after the other, a later one over an earlier.
"""

import json
from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pixelclip.data.datasets.sem_seg_benchmark import IGNORE_LABEL, SemSegBenchmark, require_layout
from pixelclip.data.label_preparation import (
    LabelFileError,
    LabelTask,
    PreparationReport,
    encode_label,
    prepare_files,
    read_image_size,
)
from pixelclip.data.rle import RLEError, sample_masks
from pixelclip.utils.atomic_write import write_text

ANNOTATIONS = "VOCdevkit/VOC2010/trainval_merged.json"
IMAGE_FOLDER = "VOCdevkit/VOC2010/JPEGImages"
# Of the 10,103 images of the JSON, those of its "val" phase. VOC2010/ImageSets/Segmentation/val.txt
# is another, smaller set.
IMAGE_LIST = "VOCdevkit/VOC2010/annotations_detectron2/context_val.txt"

PASCAL_CONTEXT_59 = SemSegBenchmark(
    name="context_59_test_sem_seg",
    vocabulary="pascal_context_59",
    num_images=(5104, 5105),  # it depends on the release of the JSON
    image_folder=IMAGE_FOLDER,
    label_folder="VOCdevkit/VOC2010/annotations_detectron2/context_59_val",
    prepare_template="pixelclip datasets prepare pascal_context --root {root}",
    image_list=IMAGE_LIST,
)
PASCAL_CONTEXT_60 = replace(
    PASCAL_CONTEXT_59,
    name="context_60_test_sem_seg",
    vocabulary="pascal_context_60",
    label_folder="VOCdevkit/VOC2010/annotations_detectron2/context_60_val",
    background_index=59,
)

# fmt: off
# The 59 most frequent of some 460 categories; the position is the train id.
CATEGORY_IDS = (
    2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113,
    115, 144, 158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326,
    347, 349, 354, 355, 360, 366, 368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458,
)
# fmt: on
TRAIN_IDS = {category_id: train_id for train_id, category_id in enumerate(CATEGORY_IDS)}

# Category id and run-length code of each region of an image, in drawing order.
Regions = list[tuple[int, dict[str, Any]]]


def prepare_pascal_context(root: Path, workers: int) -> PreparationReport:
    """Write the label PNGs of Context-59 and of Context-60, and the list of their images.

    ``root`` holds ``VOCdevkit``; see
    :func:`pixelclip.data.label_preparation.prepare_label_folder` for the rest.

    Raises:
        ValueError: ``trainval_merged.json`` is not of the published form.
    """
    require_layout("PASCAL Context", root, [ANNOTATIONS, IMAGE_FOLDER])
    print(f"Reading {root / ANNOTATIONS}, which takes a while ...")
    regions = _read_regions(root / ANNOTATIONS)
    tasks = []
    for benchmark in (PASCAL_CONTEXT_59, PASCAL_CONTEXT_60):
        rest = benchmark.background_index or IGNORE_LABEL
        for name in regions:
            image, label = (f"{IMAGE_FOLDER}/{name}.jpg", f"{benchmark.label_folder}/{name}.png")
            draw = partial(_draw_task, regions=regions[name], everything_else=rest)
            tasks.append(LabelTask(root / image, root / ANNOTATIONS, root / label, draw))
    report = prepare_files(tasks, workers)
    write_text(root / IMAGE_LIST, "".join(f"{name}\n" for name in regions))
    return report


def _read_regions(path: Path) -> dict[str, Regions]:
    """Read the regions of all validation images, by name, out of ``trainval_merged.json``."""
    try:
        content = json.loads(path.read_bytes())
        by_id: dict[int, Regions] = defaultdict(list)
        for region in content["annos_segmentation"]:
            by_id[region["image_id"]].append((int(region["category_id"]), region["segmentation"]))
        images = [image for image in content["images"] if image["phase"] == "val"]
        regions = {Path(image["file_name"]).stem: by_id[image["image_id"]] for image in images}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path} is not of the published form ({type(error).__name__}: {error}); expected an "
            "object with 'images' (image_id, file_name, phase) and 'annos_segmentation' "
            "(image_id, category_id, segmentation). Download it again."
        ) from error
    if not regions:
        raise ValueError(f"{path} has no image of the phase 'val'. Download it again.")
    return dict(sorted(regions.items()))


def draw_label(regions: Regions, size: tuple[int, int], everything_else: int) -> np.ndarray:
    """Draw the label of an image of a size (height, width).

    Returns:
        (height, width) uint8: train ids 0..58, and ``everything_else`` in pixels of other
        categories or none.

    Raises:
        RLEError: a run-length code is malformed or of another size.
    """
    height, width = size
    codes = [code for _, code in regions]
    masks = sample_masks(codes, np.arange(height), np.arange(width), size)
    label = np.full(size, everything_else, np.uint8)
    for (category_id, _), mask in zip(regions, masks, strict=True):
        label[mask] = TRAIN_IDS.get(category_id, everything_else)
    return label


def _draw_task(task: LabelTask, regions: Regions, everything_else: int) -> bytes:
    width, height = read_image_size(task.image)
    try:
        return encode_label(draw_label(regions, (height, width), everything_else))
    except RLEError as error:
        raise LabelFileError(f"{task.source}: {task.image.name}: {error}") from error
