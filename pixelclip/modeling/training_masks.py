"""The masks of a training batch, out of our mapper's inputs or of Detectron2's.

Shapes: N masks in the batch, mask resolution (Mh, Mw).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.structures import BitMasks
from torch import Tensor
from torch.nn import functional as F


def gather_training_masks(
    batched_inputs: Sequence[Mapping[str, Any]], resolution: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """All masks of a batch that have more than one pixel at the mask resolution.

    Args:
        batched_inputs: one dict per image, with ``masks`` (n, Mh, Mw) bool, or with ``instances``
            whose ``gt_masks`` are BitMasks at any resolution, resized by nearest neighbour.
        resolution: (Mh, Mw).
        device: of the result.

    Returns:
        Masks (N, Mh, Mw) bool, and the image (N,) int64 of each, ascending.

    Raises:
        ValueError: masks of another size, of another type, or none of the two keys.
    """
    per_image = [_masks_of(inputs, resolution).to(device) for inputs in batched_inputs]
    counts = torch.tensor([len(masks) for masks in per_image], device=device)
    image_index = torch.arange(len(per_image), device=device).repeat_interleave(counts)
    masks = torch.cat(per_image)
    keep = masks.flatten(1).sum(dim=1) > 1  # (N, Mh*Mw) summed to (N,)
    return masks[keep], image_index[keep]


def _masks_of(inputs: Mapping[str, Any], resolution: tuple[int, int]) -> Tensor:
    if "masks" not in inputs:
        return _resize(_bitmasks_of(inputs), resolution)
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


def _bitmasks_of(inputs: Mapping[str, Any]) -> Tensor:
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
