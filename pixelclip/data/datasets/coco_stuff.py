"""COCO-Stuff with 171 classes: the 5000 validation images of COCO 2017, things and stuff."""

from pathlib import Path

from pixelclip.data.datasets.sem_seg_benchmark import IGNORE_LABEL, SemSegBenchmark
from pixelclip.data.label_preparation import PreparationReport, prepare_label_folder

COCO_STUFF_171 = SemSegBenchmark(
    name="coco_2017_test_stuff_all_sem_seg",
    vocabulary="coco_stuff_171",
    num_images=(5000,),
    image_folder="coco-stuff/images/val2017",
    label_folder="coco-stuff/annotations_detectron2/val2017",
    prepare_template="python datasets/prepare_coco_stuff.py --root {root}",
)
PUBLISHED_LABEL_FOLDER = "coco-stuff/annotations/val2017"

# COCO numbered its categories before it dropped these things, which no image is labelled with.
_DROPPED_CATEGORY_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
CATEGORY_IDS = tuple(id_ for id_ in range(1, 183) if id_ not in _DROPPED_CATEGORY_IDS)

# A published label is the category id less one; 255 is unlabelled.
TRAIN_IDS = {IGNORE_LABEL: IGNORE_LABEL} | {
    category_id - 1: train_id for train_id, category_id in enumerate(CATEGORY_IDS)
}


def prepare_coco_stuff(root: Path, workers: int) -> PreparationReport:
    """Write the label PNGs of COCO-Stuff with train ids, next to the published ones.

    ``root`` holds ``coco-stuff``; see :func:`prepare_label_folder` for the rest.
    """
    return prepare_label_folder(COCO_STUFF_171, PUBLISHED_LABEL_FOLDER, TRAIN_IDS, root, workers)
