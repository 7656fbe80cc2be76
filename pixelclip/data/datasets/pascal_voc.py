"""PASCAL VOC 2012, the segmentation validation set: VOC-20, and VOC-21 with the background."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from pixelclip.data.datasets.sem_seg_benchmark import (
    IGNORE_LABEL,
    SemSegBenchmark,
    list_image_names,
    require_layout,
)
from pixelclip.data.label_preparation import (
    PreparationReport,
    convert_label,
    label_tasks,
    prepare_files,
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
    prepare_template="pixelclip datasets prepare voc --root {root}",
    image_list=IMAGE_LIST,
)
PASCAL_VOC_21 = replace(
    PASCAL_VOC_20,
    name="voc_2012_21_test_sem_seg",
    vocabulary="pascal_voc_21",
    label_folder="VOCdevkit/VOC2012/annotations_detectron2_background",
    background_index=BACKGROUND_INDEX,
)
# The first is the official archive's, as palette images. The second has several versions, some of
# them with other labels or none for the validation images: it only serves without the first.
PUBLISHED_LABEL_FOLDERS = (
    "VOCdevkit/VOC2012/SegmentationClass",
    "VOCdevkit/VOC2012/SegmentationClassAug",
)

# 0 is background, 255 the undecided border of an object.
_TRAIN_IDS_OF_OBJECTS = {255: IGNORE_LABEL} | {value: value - 1 for value in range(1, 21)}
TRAIN_IDS_20 = {0: IGNORE_LABEL} | _TRAIN_IDS_OF_OBJECTS
TRAIN_IDS_21 = {0: BACKGROUND_INDEX} | _TRAIN_IDS_OF_OBJECTS


def prepare_pascal_voc(root: Path, workers: int) -> PreparationReport:
    """Write the label PNGs of VOC-20 and of VOC-21, for the images of ``val.txt``.

    ``root`` holds ``VOCdevkit``; see
    :func:`pixelclip.data.label_preparation.prepare_label_folder` for the rest.

    Raises:
        ValueError: ``val.txt`` is empty or malformed.
    """
    present = [folder for folder in PUBLISHED_LABEL_FOLDERS if (root / folder).exists()]
    published = (present or PUBLISHED_LABEL_FOLDERS)[0]
    require_layout("PASCAL VOC 2012", root, [IMAGE_FOLDER, IMAGE_LIST, published])
    names = list_image_names(PASCAL_VOC_20, root)
    tasks = []
    for benchmark, ids in ((PASCAL_VOC_20, TRAIN_IDS_20), (PASCAL_VOC_21, TRAIN_IDS_21)):
        folders = [root / folder for folder in (IMAGE_FOLDER, published, benchmark.label_folder)]
        tasks += label_tasks(names, folders, partial(convert_label, train_ids=ids))
    return prepare_files(tasks, workers)
