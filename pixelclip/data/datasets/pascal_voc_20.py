"""PASCAL VOC 2012 with its 20 classes: the segmentation validation set, background left out."""

from pathlib import Path

from pixelclip.data.datasets.sem_seg_benchmark import (
    IGNORE_LABEL,
    SemSegBenchmark,
    list_image_names,
    require_layout,
)
from pixelclip.data.label_preparation import (
    PreparationReport,
    label_tasks,
    make_label_table,
    prepare_labels,
)

IMAGE_LIST = "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"

PASCAL_VOC_20 = SemSegBenchmark(
    name="voc_2012_test_sem_seg",
    vocabulary="pascal_voc_20",
    num_images=1449,
    image_folder="VOCdevkit/VOC2012/JPEGImages",
    label_folder="VOCdevkit/VOC2012/annotations_detectron2",
    image_list=IMAGE_LIST,
    prepare_command="python datasets/prepare_voc.py",
)
# The official archive has the first, as palette images. The second exists in several versions, all
# grayscale; some of them hold other labels than the benchmark's for the validation images, or none,
# so it only serves where the first is absent.
PUBLISHED_LABEL_FOLDERS = (
    "VOCdevkit/VOC2012/SegmentationClass",
    "VOCdevkit/VOC2012/SegmentationClassAug",
)

# 0 is background, 255 the undecided rim of an object.
TRAIN_IDS = {0: IGNORE_LABEL, 255: IGNORE_LABEL} | {value: value - 1 for value in range(1, 21)}


def prepare_pascal_voc_20(root: Path, workers: int) -> PreparationReport:
    """Write the label PNGs of VOC-20 with train ids, for the images of ``val.txt``.

    Args:
        root: the folder that holds ``VOCdevkit``.
        workers: how many files are worked on at a time, at least 1.

    Returns:
        What was done.

    Raises:
        FileNotFoundError: the published layout is not there.
        ValueError: ``val.txt`` is empty or malformed.
        OSError: a file cannot be written.
    """
    present = [folder for folder in PUBLISHED_LABEL_FOLDERS if (root / folder).exists()]
    published = (present or PUBLISHED_LABEL_FOLDERS)[0]
    require_layout("PASCAL VOC 2012", root, [PASCAL_VOC_20.image_folder, IMAGE_LIST, published])
    names = list_image_names(PASCAL_VOC_20, root)
    images, target = root / PASCAL_VOC_20.image_folder, root / PASCAL_VOC_20.label_folder
    tasks = label_tasks(names, images, root / published, target)
    return prepare_labels(tasks, make_label_table(TRAIN_IDS), workers)
