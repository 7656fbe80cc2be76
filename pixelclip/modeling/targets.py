"""The masks of a training batch, and what the predicted maps are compared with: unions of masks.

Shapes: N masks of (Mh, Mw), the mask resolution; B images, K clusters, n maps.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.structures import BitMasks
from torch import Tensor
from torch.nn import functional as F

from pixelclip.modeling.dino_masks import DinoMasks


class MaskTargets(NamedTuple):
    """Targets of n maps, and where they count: in the pixels that some mask of the image covers.

    Attributes:
        masks: (n, Mh, Mw) bool, the target of each map.
        image_index: (n,) int64, image of each map.
        valid_mask: (B, Mh, Mw) bool.
    """

    masks: Tensor
    image_index: Tensor
    valid_mask: Tensor


class EncodedMasks(NamedTuple):
    """The masks of a batch, and what the teacher makes of them.

    Attributes:
        masks: (N, Mh, Mw) bool.
        image_index: (N,) int64, the image of each mask, ascending.
        features: (N, d) float32, what the masks are clustered by.
        dense: (B, h, w, d), the teacher's features of the weak images.
    """

    masks: Tensor
    image_index: Tensor
    features: Tensor
    dense: Tensor


def merge_masks(
    masks: Tensor, image_index: Tensor, assignment: Tensor, num_images: int, num_clusters: int
) -> Tensor:
    """Merge masks into one target per image and cluster.

    Source: paper section 3.2.

    Args:
        masks: (N, Mh, Mw) bool.
        image_index: (N,) int64, image of each mask.
        assignment: (N,) int64, cluster of each mask.
        num_images: B.
        num_clusters: K.

    Returns:
        (B, K, Mh, Mw) bool.
    """
    union = _unions(masks, image_index * num_clusters + assignment, num_images * num_clusters)
    return union.view(num_images, num_clusters, *masks.shape[1:])  # (B, K, Mh, Mw)


def union_of_masks(masks: Tensor, image_index: Tensor, num_images: int) -> Tensor:
    """Pixels (B, Mh, Mw) bool of each image that at least one of its masks covers."""
    return _unions(masks, image_index, num_images)


def _unions(masks: Tensor, index: Tensor, count: int) -> Tensor:
    """Unions (count, Mh, Mw) bool of the masks with the same index (N,)."""
    # Added as bool, true and true is true.
    unions = torch.zeros((count, *masks.shape[1:]), dtype=torch.bool, device=masks.device)
    return unions.index_add_(0, index, masks)


class TrainingMasks:
    """The masks of a training batch: those of its inputs, or those that DINO makes.

    Args:
        resolution: (Mh, Mw).
        dino: makes the masks, which the inputs then need not have.
    """

    def __init__(self, resolution: tuple[int, int], dino: DinoMasks | None = None) -> None:
        self.resolution = resolution
        self.dino = dino

    def __call__(
        self, batched_inputs: Sequence[Mapping[str, Any]], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """See :func:`gather_training_masks`."""
        if self.dino is not None:
            masks = self.dino(batched_inputs, device)
            batched_inputs = [{"masks": image_masks} for image_masks in masks]
        return gather_training_masks(batched_inputs, self.resolution, device)


def gather_training_masks(
    batched_inputs: Sequence[Mapping[str, Any]], resolution: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """All masks of a batch that have more than one pixel at the mask resolution.

    Args:
        batched_inputs: one dict per image, with ``masks`` (n, Mh, Mw) bool, or with ``instances``
            whose ``gt_masks`` are BitMasks at any resolution, resized by nearest neighbor.
        resolution: (Mh, Mw).
        device: of the result.

    Returns:
        Masks (N, Mh, Mw) bool, and the image (N,) int64 of each, ascending.

    Raises:
        ValueError: masks of another size, of another type, or none of the two keys.
    """
    per_image = [_read_masks(inputs, resolution).to(device) for inputs in batched_inputs]
    counts = torch.tensor([len(masks) for masks in per_image], device=device)
    image_index = torch.arange(len(per_image), device=device).repeat_interleave(counts)
    masks = torch.cat(per_image)
    keep = masks.flatten(1).sum(dim=1) > 1  # (N, Mh*Mw) summed to (N,)
    return masks[keep], image_index[keep]


def _read_masks(inputs: Mapping[str, Any], resolution: tuple[int, int]) -> Tensor:
    if "masks" not in inputs:
        return _resize(_read_bitmasks(inputs), resolution)
    masks = inputs["masks"]
    if tuple(masks.shape[1:]) != resolution:
        raise ValueError(
            f"'masks' has shape {tuple(masks.shape)}; expected N masks of {resolution}, "
            "MODEL.PIXELCLIP.MASK_RESOLUTION. Masks at image resolution go into 'instances' as "
            "gt_masks."
        )
    return masks.bool()


def _resize(masks: Tensor, resolution: tuple[int, int]) -> Tensor:
    if not len(masks):
        return masks.new_zeros((0, *resolution), dtype=torch.bool)
    return F.interpolate(masks[:, None].float(), resolution, mode="nearest")[:, 0].bool()


def _read_bitmasks(inputs: Mapping[str, Any]) -> Tensor:
    """Masks (n, H, W) bool of ``instances``; Detectron2 leaves them out where there are none."""
    if "instances" not in inputs:
        raise ValueError(
            f"A training input has the keys {sorted(inputs)}; expected 'masks' or 'instances'."
        )
    instances = inputs["instances"]
    if not instances.get_fields() or not len(instances):
        return torch.zeros(0, *instances.image_size, dtype=torch.bool)
    masks = instances.gt_masks if instances.has("gt_masks") else None
    if not isinstance(masks, BitMasks):
        raise ValueError(
            f"'instances' has gt_masks of type {type(masks).__name__}; expected BitMasks: set "
            'INPUT.MASK_FORMAT to "bitmask".'
        )
    return masks.tensor
