"""Cityscapes with 19 classes: the validation images with fine annotations, under Detectron2's name.

Detectron2 registers this data set itself. Its entry is replaced by one that differs in two points:
the root is looked up when the data set is used, not at the time of import; and the polygons, from
which Detectron2 only takes the sizes of the images, may be absent. The name, the class names, the
kind of evaluation and the label files are Detectron2's.
"""

from detectron2.data import DatasetCatalog, MetadataCatalog

from pixelclip.data.datasets.sem_seg_benchmark import (
    SemSegBenchmark,
    register_sem_seg_benchmark,
)

CITYSCAPES_19 = SemSegBenchmark(
    name="cityscapes_fine_sem_seg_val",
    vocabulary="cityscapes_19",
    num_images=(500,),
    image_folder="cityscapes/leftImg8bit/val",
    label_folder="cityscapes/gtFine/val",
    prepare_template=(
        "CITYSCAPES_DATASET={root}/cityscapes "
        "python -m cityscapesscripts.preparation.createTrainIdLabelImgs"
    ),
    image_suffixes=("_leftImg8bit.png",),
    label_suffix="_gtFine_labelTrainIds.png",
    evaluator_type="cityscapes_sem_seg",
)


def register_cityscapes() -> None:
    """Register Cityscapes in place of Detectron2's own entry; somebody else's entry stays."""
    name = CITYSCAPES_19.name
    if name in DatasetCatalog and DatasetCatalog[name].__module__.startswith("detectron2."):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    register_sem_seg_benchmark(CITYSCAPES_19)
