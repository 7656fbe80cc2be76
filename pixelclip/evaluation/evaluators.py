"""The evaluator of a data set, and the model that gives it label maps."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, SemSegEvaluator
from torch import Tensor, nn

from pixelclip.evaluation.mask_classification import MaskClassificationEvaluator
from pixelclip.evaluation.mask_regions import read_label_map
from pixelclip.meta_arch import PixelCLIP
from pixelclip.utils.transfer import to_device

_SEMANTIC_SEGMENTATION = ("sem_seg", "cityscapes_sem_seg")
EVALUATIONS = ("segmentation", "mask_classification")


class LabelMapEvaluator(SemSegEvaluator):
    """Detectron2's ``SemSegEvaluator``, which also takes label maps instead of scores.

    Args:
        dataset_name: a registered data set.
        prediction_folder: for Detectron2's JSON of all predictions, which takes longer to make than
            all the rest; None for no such file.
    """

    def __init__(self, dataset_name: str, prediction_folder: str | None = None) -> None:
        super().__init__(dataset_name, distributed=True, output_dir=prediction_folder)
        # Newer versions of Detectron2 also compute the IoU of boundaries, which takes longer than
        # all the rest and is not in the table.
        self._compute_boundary_iou = False
        self._counts: Tensor | None = None  # on the device of the predictions

    def reset(self) -> None:
        """Forget what was counted."""
        super().reset()
        self._counts = None

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Tensor]]
    ) -> None:
        """Compare a batch with its labels.

        Args:
            inputs: each with a ``file_name`` of the data set.
            outputs: each with ``labels`` (H, W), integers in 0..C-1, or ``sem_seg`` (C, H, W).

        Raises:
            ValueError: a label file that cannot be read, or of another size than the prediction.
        """
        for image, output in zip(inputs, outputs, strict=True):
            labels = output["labels"] if "labels" in output else output["sem_seg"].argmax(dim=0)
            self._count(labels, self.input_file_to_gt_file[image["file_name"]])
            if self._output_dir:
                predicted = labels.cpu().numpy().astype(np.int64)
                self._predictions.extend(self.encode_json_sem_seg(predicted, image["file_name"]))

    def _count(self, predicted: Tensor, label_file: str) -> None:
        """Count the pixels of each predicted and true class where the prediction is."""
        truth = read_label_map(label_file, self._num_classes, self._ignore_label)
        if truth.shape != predicted.shape:
            raise ValueError(
                f"{label_file} has {truth.shape} pixels (height, width); the prediction has "
                f"{tuple(predicted.shape)}. Prepare the data set again."
            )
        size = self._num_classes + 1  # the last one is void
        true = to_device(torch.from_numpy(truth), predicted.device)
        pairs = (size * predicted.long() + true).flatten()  # (H, W) -> (H*W,)
        if self._counts is None:
            self._counts = pairs.new_zeros(size * size)
        self._counts.index_add_(0, pairs, torch.ones_like(pairs))

    def evaluate(self) -> Any:
        """Metrics as Detectron2's, in the main process; for them the host waits for the GPU."""
        if self._counts is not None:  # (size**2,) -> (predicted, true)
            self._conf_matrix += self._counts.cpu().numpy().reshape(self._conf_matrix.shape)
            self._counts = None
        return super().evaluate()


class LabelMapModel(nn.Module):
    """PixelCLIP for Detectron2's ``inference_on_dataset`` with a :class:`LabelMapEvaluator`.

    Each output is ``{"labels": (height, width)}``, see :meth:`PixelCLIP.segment_labels`: scores of
    all classes are neither made nor copied from the GPU.
    """

    def __init__(self, model: PixelCLIP) -> None:
        super().__init__()
        self.model = model
        self.train(model.training)

    @torch.no_grad()
    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Tensor]]:
        """Label maps of a batch of images."""
        return [{"labels": labels} for labels in self.model.segment_labels(batched_inputs)]


def build_evaluator(
    dataset_name: str,
    output_dir: str,
    evaluation: str = "segmentation",
    saves_predictions: bool = False,
) -> DatasetEvaluator:
    """Build the evaluator of a semantic segmentation data set.

    Segmentation is evaluated by :class:`LabelMapEvaluator`, for Cityscapes too: its mIoU is
    that of Cityscapes' own script, which has no pixel and mean accuracy and only works on one
    machine.

    Args:
        dataset_name: a registered data set whose metadata has an ``evaluator_type``.
        output_dir: with ``saves_predictions``, they go to ``output_dir/inference/dataset_name``.
        evaluation: "segmentation" or "mask_classification".

    Raises:
        ValueError: an unknown evaluation, or an ``evaluator_type`` of other data sets.
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
    folder = os.path.join(output_dir, "inference", dataset_name) if saves_predictions else None
    evaluator = LabelMapEvaluator(dataset_name, folder)
    if evaluation == "mask_classification":
        return MaskClassificationEvaluator(dataset_name, evaluator)
    return evaluator
