"""COCO-Stuff with 171 classes: the 5000 validation images of COCO 2017, things and stuff.

Its regions without their classes are a training set next to SA-1B (paper, training data): of each
published label image, the pixels of one class are one mask, in SA-1B's JSON. Unlabeled pixels (255)
belong to no mask.
"""

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
from detectron2.data import DatasetCatalog

from pixelclip.data.datasets.sem_seg_benchmark import (
    IGNORE_LABEL,
    SemSegBenchmark,
    datasets_root,
    format_command,
    list_files,
    require_layout,
)
from pixelclip.data.label_preparation import (
    LabelTask,
    PreparationReport,
    convert_label,
    prepare_label_folder,
    read_label,
)

COCO_STUFF_171 = SemSegBenchmark(
    name="coco_2017_test_stuff_all_sem_seg",
    vocabulary="coco_stuff_171",
    num_images=(5000,),
    image_folder="coco-stuff/images/val2017",
    label_folder="coco-stuff/annotations_detectron2/val2017",
    prepare_template="pixelclip datasets prepare coco_stuff --root {root}",
)
PUBLISHED_LABEL_FOLDER = "coco-stuff/annotations/val2017"

# COCO numbered its categories before it dropped these things, which no image is labeled with.
_DROPPED_CATEGORY_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
CATEGORY_IDS = tuple(id_ for id_ in range(1, 183) if id_ not in _DROPPED_CATEGORY_IDS)

# A published label is the category id minus 1; 255 is unlabeled.
TRAIN_IDS = {IGNORE_LABEL: IGNORE_LABEL} | {
    category_id - 1: train_id for train_id, category_id in enumerate(CATEGORY_IDS)
}

# The split of COCO 2017 that each data set of masks is made of, and its number of images.
MASK_SPLITS = {
    "coco_2017_train_stuff_masks": ("train2017", 118_287),
    "coco_2017_val_stuff_masks": ("val2017", 5000),
}
# Folders of a split's images, published labels and masks.
MASK_FOLDERS = tuple(f"coco-stuff/{f}/" for f in ("images", "annotations", "annotations_masks"))
MASKS_TEMPLATE = "pixelclip datasets prepare coco_stuff_masks --root {root} --split "

logger = logging.getLogger(__name__)


def prepare_coco_stuff(root: Path, workers: int) -> PreparationReport:
    """Write the label PNGs of COCO-Stuff with train ids, next to the published ones.

    ``root`` holds ``coco-stuff``; see :func:`prepare_label_folder` for the rest.
    """
    folders = COCO_STUFF_171.image_folder, PUBLISHED_LABEL_FOLDER, COCO_STUFF_171.label_folder
    convert = partial(convert_label, train_ids=TRAIN_IDS)
    return prepare_label_folder(COCO_STUFF_171.name, folders, convert, root, workers)


def prepare_coco_stuff_masks(root: Path, workers: int, split: str) -> PreparationReport:
    """Write a JSON file with the masks of each image of a split, "train2017" or "val2017".

    ``root`` holds ``coco-stuff``; see :func:`prepare_label_folder` for the rest.
    """
    folders = [folder + split for folder in MASK_FOLDERS]
    return prepare_label_folder("COCO-Stuff", folders, _make_json, root, workers, ".json")


def encode_regions(label: np.ndarray) -> list[dict[str, Any]]:
    """Encode the region of each label value but 255 as a mask.

    Args:
        label: (H, W) uint8.

    Returns:
        SA-1B's annotations, ``{"segmentation": {"size": [H, W], "counts": str}}``, one per value
        that is present, in the order of the values.
    """
    annotations = []
    for value in np.setdiff1d(label, [IGNORE_LABEL]):
        code = pycocotools.mask.encode(np.asfortranarray(label == value, dtype=np.uint8))
        segmentation = {"size": list(label.shape), "counts": code["counts"].decode()}
        annotations.append({"segmentation": segmentation})
    return annotations


def load_coco_stuff_masks(name: str) -> list[dict[str, Any]]:
    """List the images of a data set of ``MASK_SPLITS`` with their masks, sorted by name.

    Returns:
        Records as ``pixelclip.data.sa1b.SA1BRecords`` holds them. Images without masks and masks
        without image are left out and counted in the log.

    Raises:
        FileNotFoundError: the images or the masks are not there; the text says what to do.
        ValueError: two images have the same name.
    """
    root, split = datasets_root(), MASK_SPLITS[name][0]
    command = format_command(MASKS_TEMPLATE + split, root)
    require_layout(name, root, [MASK_FOLDERS[0] + split, MASK_FOLDERS[2] + split], command)
    images, masks = list_mask_files(name)
    names = sorted(images.keys() & masks.keys())
    if not names:
        raise FileNotFoundError(f"{name}: no masks in {MASK_FOLDERS[2]}{split}. Run: {command}")
    if len(names) < max(len(images), len(masks)):
        text = "%s: %d images without masks and %d masks without image are left out."
        logger.warning(text, name, len(images) - len(names), len(masks) - len(names))
    return [
        {
            "file_name": str(images[stem]),
            "image_id": stem,
            "image_span": None,
            "annotation_file_name": str(masks[stem]),
            "annotation_span": None,
        }
        for stem in names
    ]


def list_mask_files(name: str) -> tuple[dict[str, Path], dict[str, Path]]:
    """Find the images and the JSON files of a data set of ``MASK_SPLITS``, each by image name."""
    root, split = datasets_root(), MASK_SPLITS[name][0]
    images, _, masks = (root / (folder + split) for folder in MASK_FOLDERS)
    return list_files(images, [".jpg"]), list_files(masks, [".json"])


def register_coco_stuff_masks() -> None:
    """Register the data sets of ``MASK_SPLITS`` with Detectron2, unless their names are taken."""
    for name in MASK_SPLITS.keys() - DatasetCatalog.keys():
        DatasetCatalog.register(name, partial(load_coco_stuff_masks, name))


def _make_json(task: LabelTask) -> bytes:
    annotations = encode_regions(read_label(task.source, task.image, TRAIN_IDS))
    return json.dumps({"annotations": annotations}).encode()
