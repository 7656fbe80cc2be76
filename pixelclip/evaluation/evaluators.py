"""The evaluator that belongs to a data set and to what is evaluated on it."""

import os

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, SemSegEvaluator

from pixelclip.evaluation.mask_classification import MaskClassificationEvaluator

_SEMANTIC_SEGMENTATION = ("sem_seg", "cityscapes_sem_seg")
EVALUATIONS = ("segmentation", "mask_classification")


def build_evaluator(
    dataset_name: str, output_dir: str, evaluation: str = "segmentation"
) -> DatasetEvaluator:
    """Build the evaluator of a semantic segmentation data set.

    Segmentation is evaluated by Detectron2's ``SemSegEvaluator``, for Cityscapes too: its mIoU is
    that of Cityscapes' own script, which has no pixel and mean accuracy and only works on one
    machine.

    Args:
        dataset_name: a registered data set whose metadata has an ``evaluator_type``.
        output_dir: predictions go to ``output_dir/inference/dataset_name``.
        evaluation: "segmentation" or "mask_classification".

    Raises:
        ValueError: an unknown evaluation, or the data set's ``evaluator_type`` is not one of
            semantic segmentation.
    """
    if evaluation not in EVALUATIONS:
        raise ValueError(
            f"TEST.EVALUATION is {evaluation!r}; it must be one of {', '.join(EVALUATIONS)}."
        )
    evaluator_type = getattr(MetadataCatalog.get(dataset_name), "evaluator_type", None)
    if evaluator_type not in _SEMANTIC_SEGMENTATION:
        raise ValueError(
            f"The data set {dataset_name!r} has evaluator_type {evaluator_type!r}; DATASETS.TEST "
            "takes data sets with 'sem_seg' or 'cityscapes_sem_seg'."
        )
    folder = os.path.join(output_dir, "inference", dataset_name)
    evaluator = SemSegEvaluator(dataset_name, distributed=True, output_dir=folder)
    # Newer versions of Detectron2 also compute the IoU of boundaries, which takes longer than all
    # the rest and is in nobody's table.
    evaluator._compute_boundary_iou = False
    if evaluation == "mask_classification":
        return MaskClassificationEvaluator(dataset_name, evaluator)
    return evaluator
