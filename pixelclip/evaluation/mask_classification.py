"""Zero-shot classification of given masks by the mean of the dense features inside them.

Shapes: B images, N masks in an image, mask resolution (Mh, Mw), C classes, d channels.
Source: the paper's table of zero-shot mask classification.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from numpy.typing import NDArray
from torch import Tensor, nn

from pixelclip.data.masks import shrink_mask
from pixelclip.meta_arch import PixelCLIP
from pixelclip.modeling.mask_pooling import pool_masks
from pixelclip.utils.transfer import to_device


@torch.no_grad()
def classify_masks(
    model: PixelCLIP, image: Tensor, masks: Tensor | NDArray[np.bool_]
) -> Tensor:
    """Similarity of each mask of an image with each class of the model's vocabulary.

    Args:
        model: in eval mode.
        image: (3, H, W) RGB in 0..255.
        masks: (N, height, width) bool tensor or array at the image's or any other resolution, none
            of them empty; resized by nearest neighbor to ``MODEL.PIXELCLIP.MASK_RESOLUTION``.

    Returns:
        (N, C) cosines, float32.

    Raises:
        ValueError: not (N, height, width), or an empty mask.
    """
    if masks.ndim != 3:
        raise ValueError(f"masks has shape {tuple(masks.shape)}; expected (N, height, width).")
    resolution = model.training_masks.resolution
    full = torch.as_tensor(masks).bool().cpu().numpy()
    empty = np.flatnonzero(~full.any(axis=(1, 2)))
    if len(empty):
        raise ValueError(f"The masks {empty[:5].tolist()} are empty: leave them out.")
    small = np.array([shrink_mask(mask, resolution) for mask in full], np.bool_)
    small = small.reshape(-1, *resolution)  # (N, Mh, Mw), also for N = 0
    return _similarities(model, [image], [torch.from_numpy(small)])[0]


def _similarities(
    model: PixelCLIP, images: Sequence[Tensor], masks: Sequence[Tensor]
) -> Sequence[Tensor]:
    """(N, C) for each image (3, H, W), whose masks are (N, Mh, Mw)."""
    features = model.image_encoder(model.preprocess(images))  # (B, h, w, d)
    counts = [len(image_masks) for image_masks in masks]
    image_index = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    pooled = pool_masks(features, to_device(torch.cat(list(masks)), model.device), image_index)
    similarities = model.text_classifier.scores(pooled).split(counts)
    score_crops = model.inference_views.crop_scorer
    if score_crops is None:
        return similarities
    mixed = []
    for image, own, similarity in zip(images, masks, similarities, strict=True):
        normalized, own_masks = model.normalize(image), to_device(own, model.device)
        crops = score_crops(normalized, own_masks, model.text_classifier)
        mixed.append(crops.mix_into(similarity))
    return mixed


class MaskClassifier(nn.Module):
    """PixelCLIP as a classifier of masks, for Detectron2's ``inference_on_dataset``.

    Each input is a dict with ``image``, ``height`` and ``width`` and the keys that
    ``MaskRegionsMapper`` adds. Each output is a dict with

    * ``mask_similarity``: (N, C) cosines;
    * ``sem_seg``: (C, height, width), to each pixel the cosines of the mask that paints it.

    Args:
        model: the vocabulary is set on it.
        fill_missing: give pixels outside every mask the model's own cosines per pixel, for masks
            that leave out more than void; otherwise they have cosine 0 with every class.
    """

    def __init__(self, model: PixelCLIP, fill_missing: bool) -> None:
        super().__init__()
        self.model = model
        self.fill_missing = fill_missing
        self.train(model.training)

    @torch.no_grad()
    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Tensor]]:
        """Classify the masks of each image and paint them; see the class."""
        images = [inputs["image"] for inputs in batched_inputs]
        similarities = _similarities(self.model, images, [x["masks"] for x in batched_inputs])
        outputs = []
        for inputs, similarity in zip(batched_inputs, similarities, strict=True):
            index_map = to_device(inputs["mask_index_map"], similarity.device)
            sem_seg = paint(similarity, index_map)
            if self.fill_missing and (inputs["mask_index_map"] < 0).any():  # asked on the host
                per_pixel = self.model.inference([inputs])[0]["sem_seg"]
                sem_seg = torch.where(index_map < 0, per_pixel, sem_seg)
            outputs.append({"mask_similarity": similarity, "sem_seg": sem_seg})
        return outputs


def paint(similarity: Tensor, index_map: Tensor) -> Tensor:
    """Scores (C, H, W) of masks with scores (N, C); ``index_map`` (H, W) has -1 for no mask.

    Pixels without a mask score 0 in every class.
    """
    no_mask = similarity.new_zeros(1, similarity.shape[1])
    return torch.cat([similarity, no_mask]).T[:, index_map]  # index -1 is the last: no mask


class MaskClassificationEvaluator(DatasetEvaluator):
    """Share of the masks that get their true class, and the metrics of the painted label map.

    ``evaluate`` returns, in percent and on the main process only, ``mask_classification`` with
    ``accuracy`` (over all masks), ``mean_class_accuracy`` (over the classes that have masks),
    ``num_masks`` (a count) and ``ACC-<class>``, next to what ``painted`` returns. Masks whose true
    class is void are not counted.

    Args:
        dataset_name: a data set with ``stuff_classes``.
        painted: an evaluator of ``sem_seg``.
    """

    def __init__(self, dataset_name: str, painted: DatasetEvaluator) -> None:
        self._class_names = list(MetadataCatalog.get(dataset_name).stuff_classes)
        self._painted = painted
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        # The last entry is void.
        self._num_masks = np.zeros(len(self._class_names) + 1, np.int64)
        self._num_correct = np.zeros(len(self._class_names) + 1, np.int64)
        self._painted.reset()

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Tensor]]
    ) -> None:
        """Count a batch of inputs with ``classes`` and outputs of :class:`MaskClassifier`."""
        self._painted.process(inputs, outputs)
        size = len(self._num_masks)
        for image, output in zip(inputs, outputs, strict=True):
            classes = image["classes"].numpy()
            is_correct = output["mask_similarity"].argmax(dim=1).cpu().numpy() == classes
            self._num_masks += np.bincount(classes, minlength=size)
            self._num_correct += np.bincount(classes[is_correct], minlength=size)

    def evaluate(self) -> dict[str, Any] | None:
        """Gather from all processes and compute; see the class."""
        gathered = comm.all_gather((self._num_masks, self._num_correct))
        painted = self._painted.evaluate()
        if not comm.is_main_process():
            return None
        num_masks, num_correct = (np.sum(part, axis=0)[:-1] for part in zip(*gathered, strict=True))
        return OrderedDict(
            mask_classification=self._accuracies(num_masks, num_correct), **(painted or {})
        )

    def _accuracies(self, num_masks: np.ndarray, num_correct: np.ndarray) -> dict[str, float]:
        """Accuracies out of counts (C,); NaN where there is no mask."""
        with np.errstate(invalid="ignore"):
            accuracies = 100 * num_correct / num_masks
            accuracy = 100 * num_correct.sum() / num_masks.sum()
        present = accuracies[num_masks > 0]
        return {
            "accuracy": float(accuracy),
            "mean_class_accuracy": float(present.mean()) if len(present) else float("nan"),
            "num_masks": float(num_masks.sum()),
            **{f"ACC-{n}": float(a) for n, a in zip(self._class_names, accuracies, strict=True)},
        }
