"""COCO-Stuff's regions as unlabelled masks: a training set beside SA-1B (paper, training data).

Of each published label image, the pixels of one class are one mask, in SA-1B's JSON and without the
class. Unlabelled pixels (255) belong to no mask.
"""

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
from detectron2.data import DatasetCatalog

from pixelclip.data.datasets.coco_stuff import TRAIN_IDS
from pixelclip.data.datasets.sem_seg_benchmark import (
    IGNORE_LABEL,
    datasets_root,
    format_command,
    list_files,
    require_layout,
)
from pixelclip.data.label_preparation import (
    LabelTask,
    PreparationReport,
    make_label_table,
    prepare_files,
    read_allowed_label,
)

logger = logging.getLogger(__name__)

# The split of COCO 2017 that each data set is made of.
SPLITS = {
    "coco_2017_train_stuff_masks": "train2017",
    "coco_2017_val_stuff_masks": "val2017",
}
NUM_IMAGES = {"train2017": 118_287, "val2017": 5000}
PREPARE_TEMPLATE = "python datasets/prepare_coco_stuff_masks.py --root {root} --split "


def image_folder(split: str) -> str:
    """Return the folder of a split's images, below the root."""
    return f"coco-stuff/images/{split}"


def mask_folder(split: str) -> str:
    """Return the folder of a split's JSON files, below the root."""
    return f"coco-stuff/annotations_masks/{split}"


def prepare_coco_stuff_masks(root: Path, workers: int, split: str) -> PreparationReport:
    """Write a JSON file with the masks of each image of a split.

    Args:
        root: the folder that holds ``coco-stuff``.
        workers: how many files are worked on at a time, at least 1.
        split: "train2017" or "val2017".

    Returns:
        What was done. An image without a label and a label without an image are problems in it.

    Raises:
        FileNotFoundError: the published layout is not there.
        OSError: a file cannot be written.
    """
    images, published = image_folder(split), f"coco-stuff/annotations/{split}"
    require_layout("COCO-Stuff", root, [images, published])
    names = list_files(root / images, [".jpg"]).keys() | list_files(root / published, [".png"])
    target = root / mask_folder(split)
    tasks = [
        LabelTask(
            root / images / f"{name}.jpg", root / published / f"{name}.png", target / f"{name}.json"
        )
        for name in sorted(names)
    ]
    return prepare_files(tasks, partial(_make_json, table=make_label_table(TRAIN_IDS)), workers)


def encode_regions(label: np.ndarray) -> list[dict[str, Any]]:
    """Encode the region of each label value but 255 as a mask.

    Args:
        label: (H, W) uint8.

    Returns:
        SA-1B's annotations, ``{"segmentation": {"size": [H, W], "counts": str}}``, one per value
        that is present, in the order of the values.
    """
    counts = np.bincount(label.ravel(), minlength=256)
    values = (value for value in np.flatnonzero(counts) if value != IGNORE_LABEL)
    annotations = []
    for value in values:
        code = pycocotools.mask.encode(np.asfortranarray(label == value, dtype=np.uint8))
        segmentation = {"size": list(label.shape), "counts": code["counts"].decode()}
        annotations.append({"segmentation": segmentation})
    return annotations


def load_coco_stuff_masks(name: str) -> list[dict[str, Any]]:
    """List a split's images with their masks, as records that MaskDatasetMapper reads.

    Args:
        name: a data set of ``SPLITS``; its files are below ``$DETECTRON2_DATASETS``.

    Returns:
        Records as ``pixelclip.data.sa1b.SA1BRecords`` holds them, sorted by image name. Images
        without masks and masks without image are left out and counted in the log.

    Raises:
        FileNotFoundError: the images or the masks are not there; the text says what to do.
        ValueError: two images have the same name.
    """
    root, split = datasets_root(), SPLITS[name]
    require_layout(name, root, [image_folder(split)])
    images, masks = _list_images_and_masks(name)
    names = sorted(images.keys() & masks.keys())
    if not names:
        raise FileNotFoundError(
            f"{name}: no prepared masks, looked for {(root / mask_folder(split)).absolute()}. "
            f"Run: {format_command(PREPARE_TEMPLATE + split, root)}"
        )
    if len(names) < max(len(images), len(masks)):
        logger.warning(
            "%s: %d images without masks and %d masks without image are left out.",
            name,
            len(images) - len(names),
            len(masks) - len(names),
        )
    return [_record(stem, images[stem], masks[stem]) for stem in names]


def count_coco_stuff_masks(name: str) -> tuple[int, int]:
    """Count the images and the JSON files of a data set of ``SPLITS``; no folder is no file."""
    images, masks = _list_images_and_masks(name)
    return len(images), len(masks)


def register_coco_stuff_masks() -> None:
    """Register the data sets of ``SPLITS`` with Detectron2, unless their names are taken."""
    for name in SPLITS:
        if name not in DatasetCatalog:
            DatasetCatalog.register(name, partial(load_coco_stuff_masks, name))


def _list_images_and_masks(name: str) -> tuple[dict[str, Path], dict[str, Path]]:
    root, split = datasets_root(), SPLITS[name]
    images = list_files(root / image_folder(split), [".jpg"])
    return images, list_files(root / mask_folder(split), [".json"])


def _record(name: str, image: Path, masks: Path) -> dict[str, Any]:
    return {
        "file_name": str(image),
        "image_id": name,
        "image_span": None,
        "annotation_file_name": str(masks),
        "annotation_span": None,
    }


def _make_json(task: LabelTask, table: np.ndarray) -> bytes:
    annotations = encode_regions(read_allowed_label(task, table))
    return json.dumps({"annotations": annotations}).encode()
