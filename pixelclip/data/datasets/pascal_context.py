"""PASCAL Context, validation set: 59 classes, and 60 with everything else as background.

The annotations are published as one JSON file with a run-length code per region. The labels below
are what its publishers' tool draws: the regions one after the other, a later one over an earlier.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pixelclip.data.datasets.sem_seg_benchmark import (
    IGNORE_LABEL,
    SemSegBenchmark,
    require_layout,
)
from pixelclip.data.label_preparation import (
    LabelFileError,
    LabelTask,
    PreparationReport,
    encode_label,
    prepare_files,
    read_image_size,
)
from pixelclip.data.rle import RLEError, sample_masks
from pixelclip.utils.atomic_write import atomic_writer

ANNOTATIONS = "VOCdevkit/VOC2010/trainval_merged.json"
IMAGE_FOLDER = "VOCdevkit/VOC2010/JPEGImages"
# Of the 10,103 images of the JSON, those of its "val" phase. VOC2010/ImageSets/Segmentation/val.txt
# is another, smaller set.
IMAGE_LIST = "VOCdevkit/VOC2010/annotations_detectron2/context_val.txt"
BACKGROUND_INDEX = 59

PASCAL_CONTEXT_59 = SemSegBenchmark(
    name="context_59_test_sem_seg",
    vocabulary="pascal_context_59",
    num_images=(5104, 5105),  # it depends on the release of the JSON
    image_folder=IMAGE_FOLDER,
    label_folder="VOCdevkit/VOC2010/annotations_detectron2/context_59_val",
    prepare_template="python datasets/prepare_pascal_context.py --root {root}",
    image_list=IMAGE_LIST,
    has_prepared_list=True,
)
PASCAL_CONTEXT_60 = replace(
    PASCAL_CONTEXT_59,
    name="context_60_test_sem_seg",
    vocabulary="pascal_context_60",
    label_folder="VOCdevkit/VOC2010/annotations_detectron2/context_60_val",
    background_index=BACKGROUND_INDEX,
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

Regions = list[tuple[int, dict[str, Any]]]
"""Category id and run-length code of the regions of one image, in drawing order."""


def prepare_pascal_context(root: Path, workers: int) -> PreparationReport:
    """Write the label PNGs of Context-59 and of Context-60, and the list of their images.

    Args:
        root: the folder that holds ``VOCdevkit``.
        workers: how many files are worked on at a time, at least 1.

    Returns:
        What was done, with two labels for each image.

    Raises:
        FileNotFoundError: the published layout is not there.
        ValueError: ``trainval_merged.json`` is no JSON, or not of the published form.
        OSError: a file cannot be written.
    """
    require_layout("PASCAL Context", root, [ANNOTATIONS, IMAGE_FOLDER])
    print(f"Reading {root / ANNOTATIONS}, which takes a while ...")
    regions = read_regions(root / ANNOTATIONS)

    def prepare(benchmark: SemSegBenchmark, everything_else: int) -> PreparationReport:
        images, labels = root / IMAGE_FOLDER, root / benchmark.label_folder
        tasks = [
            LabelTask(images / f"{name}.jpg", root / ANNOTATIONS, labels / f"{name}.png")
            for name in regions
        ]
        draw = partial(_draw_task, regions=regions, everything_else=everything_else)
        return prepare_files(tasks, draw, workers)

    report = prepare(PASCAL_CONTEXT_59, IGNORE_LABEL) + prepare(PASCAL_CONTEXT_60, BACKGROUND_INDEX)
    with atomic_writer(root / IMAGE_LIST) as file:
        file.write("".join(f"{name}\n" for name in regions).encode())
    return report


def read_regions(path: Path) -> dict[str, Regions]:
    """Read the regions of all validation images out of ``trainval_merged.json``.

    Args:
        path: the file; all of it is held in memory while it is read.

    Returns:
        The regions by image name (without suffix), sorted; an image may have none.

    Raises:
        ValueError: the file is no JSON or not of the published form, or has no validation image.
    """
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
            "(image_id, category_id, segmentation). Download it anew."
        ) from error
    if not regions:
        raise ValueError(f"{path} has no image of the phase 'val'. Download it anew.")
    return dict(sorted(regions.items()))


def draw_label(regions: Regions, size: tuple[int, int], everything_else: int) -> np.ndarray:
    """Draw the label of an image.

    Args:
        regions: in drawing order.
        size: (height, width) of the image.
        everything_else: value of the pixels of other categories or of none.

    Returns:
        (height, width) uint8 of train ids 0..58 and ``everything_else``.

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


def _draw_task(task: LabelTask, regions: Mapping[str, Regions], everything_else: int) -> bytes:
    width, height = read_image_size(task.image)
    try:
        label = draw_label(regions[task.target.stem], (height, width), everything_else)
    except RLEError as error:
        raise LabelFileError(f"{task.source}: {task.image.name}: {error}") from error
    return encode_label(label)
