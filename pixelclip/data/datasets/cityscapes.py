"""Cityscapes with 19 classes: the validation images with fine annotations, under Detectron2's name.

Our entry replaces Detectron2's own and differs in two points: the root is looked up when the data
set is used, not at import, and the polygons, of which only the sizes are used, may be absent.
"""

from detectron2.data import DatasetCatalog, MetadataCatalog

from pixelclip.data.datasets.sem_seg_benchmark import SemSegBenchmark, register_sem_seg_benchmark

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
    """Register Cityscapes in place of Detectron2's own entry; another project's entry stays."""
    name = CITYSCAPES_19.name
    if name in DatasetCatalog and DatasetCatalog[name].__module__.startswith("detectron2."):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    register_sem_seg_benchmark(CITYSCAPES_19)
