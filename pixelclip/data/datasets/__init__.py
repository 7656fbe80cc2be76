"""The benchmarks, one file each, and the registration of every data set with Detectron2."""

from detectron2.data import DatasetCatalog

from pixelclip.data.datasets.ade20k_150 import ADE20K_150
from pixelclip.data.datasets.cityscapes import CITYSCAPES_19, register_cityscapes
from pixelclip.data.datasets.coco_stuff import COCO_STUFF_171, register_coco_stuff_masks
from pixelclip.data.datasets.pascal_context import PASCAL_CONTEXT_59, PASCAL_CONTEXT_60
from pixelclip.data.datasets.pascal_voc import PASCAL_VOC_20, PASCAL_VOC_21
from pixelclip.data.datasets.sem_seg_benchmark import (
    register_sem_seg_benchmark,
    register_sem_seg_folder,
    register_sem_seg_folders,
)
from pixelclip.data.sa1b import register_images, register_sa1b

__all__ = [
    "BENCHMARKS",
    "register_all",
    "register_sem_seg_folder",
    "register_sem_seg_folders",
]

# The five benchmarks in the order of the published table, then those with background.
BENCHMARKS = (
    COCO_STUFF_171,
    ADE20K_150,
    PASCAL_CONTEXT_59,
    CITYSCAPES_19,
    PASCAL_VOC_20,
    PASCAL_CONTEXT_60,
    PASCAL_VOC_21,
)


def register_all() -> None:
    """Register training sets and benchmarks; names that are registered already stay as they are."""
    if "sa1b_train" not in DatasetCatalog:
        register_sa1b()
    register_images()
    register_coco_stuff_masks()
    register_cityscapes()
    for benchmark in BENCHMARKS:
        register_sem_seg_benchmark(benchmark)
