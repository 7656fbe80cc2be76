"""The evaluator that belongs to a data set."""

import os

from detectron2.data import MetadataCatalog
from detectron2.evaluation import (
    CityscapesSemSegEvaluator,
    DatasetEvaluator,
    SemSegEvaluator,
)


def build_evaluator(dataset_name: str, output_dir: str) -> DatasetEvaluator:
    """Build Detectron2's evaluator for a semantic segmentation data set.

    Args:
        dataset_name: a registered data set whose metadata has an ``evaluator_type``.
        output_dir: predictions go to ``output_dir/inference/dataset_name``.

    Raises:
        ValueError: the data set's ``evaluator_type`` is not one of semantic segmentation.
    """
    evaluator_type = getattr(MetadataCatalog.get(dataset_name), "evaluator_type", None)
    if evaluator_type == "sem_seg":
        folder = os.path.join(output_dir, "inference", dataset_name)
        return SemSegEvaluator(dataset_name, distributed=True, output_dir=folder)
    if evaluator_type == "cityscapes_sem_seg":
        return CityscapesSemSegEvaluator(dataset_name)
    raise ValueError(
        f"The data set {dataset_name!r} has evaluator_type {evaluator_type!r}; DATASETS.TEST takes "
        "data sets with 'sem_seg' or 'cityscapes_sem_seg'."
    )
