"""PASCAL VOC 2012, the segmentation validation set: VOC-20, and VOC-21 with the background."""

from dataclasses import replace
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
IMAGE_FOLDER = "VOCdevkit/VOC2012/JPEGImages"
BACKGROUND_INDEX = 20

PASCAL_VOC_20 = SemSegBenchmark(
    name="voc_2012_test_sem_seg",
    vocabulary="pascal_voc_20",
    num_images=(1449,),
    image_folder=IMAGE_FOLDER,
    label_folder="VOCdevkit/VOC2012/annotations_detectron2",
    prepare_template="python datasets/prepare_voc.py --root {root}",
    image_list=IMAGE_LIST,
)
PASCAL_VOC_21 = replace(
    PASCAL_VOC_20,
    name="voc_2012_21_test_sem_seg",
    vocabulary="pascal_voc_21",
    label_folder="VOCdevkit/VOC2012/annotations_detectron2_background",
    background_index=BACKGROUND_INDEX,
)
# The official archive has the first, as palette images. The second exists in several versions, all
# grayscale; some of them hold other labels than the benchmark's for the validation images, or none,
# so it only serves where the first is absent.
PUBLISHED_LABEL_FOLDERS = (
    "VOCdevkit/VOC2012/SegmentationClass",
    "VOCdevkit/VOC2012/SegmentationClassAug",
)

# 0 is background, 255 the undecided rim of an object.
_TRAIN_IDS_OF_OBJECTS = {255: IGNORE_LABEL} | {value: value - 1 for value in range(1, 21)}
TRAIN_IDS_20 = {0: IGNORE_LABEL} | _TRAIN_IDS_OF_OBJECTS
TRAIN_IDS_21 = {0: BACKGROUND_INDEX} | _TRAIN_IDS_OF_OBJECTS


def prepare_pascal_voc(root: Path, workers: int) -> PreparationReport:
    """Write the label PNGs of VOC-20 and of VOC-21, for the images of ``val.txt``.

    Args:
        root: the folder that holds ``VOCdevkit``.
        workers: how many files are worked on at a time, at least 1.

    Returns:
        What was done, with two labels for each image.

    Raises:
        FileNotFoundError: the published layout is not there.
        ValueError: ``val.txt`` is empty or malformed.
        OSError: a file cannot be written.
    """
    present = [folder for folder in PUBLISHED_LABEL_FOLDERS if (root / folder).exists()]
    published = (present or PUBLISHED_LABEL_FOLDERS)[0]
    require_layout("PASCAL VOC 2012", root, [IMAGE_FOLDER, IMAGE_LIST, published])
    names, images = list_image_names(PASCAL_VOC_20, root), root / IMAGE_FOLDER

    def prepare(benchmark: SemSegBenchmark, train_ids: dict[int, int]) -> PreparationReport:
        tasks = label_tasks(names, images, root / published, root / benchmark.label_folder)
        return prepare_labels(tasks, make_label_table(train_ids), workers)

    return prepare(PASCAL_VOC_20, TRAIN_IDS_20) + prepare(PASCAL_VOC_21, TRAIN_IDS_21)
