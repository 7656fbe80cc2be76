"""The masks of a training batch, and what the predicted maps are compared with: unions of masks.

Shapes: N masks of (Mh, Mw), the mask resolution; B images, K clusters, n maps.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.structures import BitMasks
from torch import Tensor
from torch.nn import functional as F

from pixelclip.data.masks import exceeds_one_pixel, split_by_image, unpack_masks
from pixelclip.modeling.dino_masks import DinoMasks
from pixelclip.utils.transfer import to_device


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
        image_index: (N,) int64, the image of each mask, ascending; on the host.
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
        image_index: (N,) int64, image of each mask, ascending; on the host.
        assignment: (N,) int64, cluster of each mask.
        num_images: B.
        num_clusters: K.

    Returns:
        (B, K, Mh, Mw) bool.
    """
    clusters = torch.arange(num_clusters, device=masks.device)
    members = (assignment[:, None] == clusters).float()  # (N, K)
    parts = (split_by_image(rows, image_index, num_images) for rows in (members, masks))
    unions = masks.new_empty((num_images, num_clusters, *masks.shape[1:]))
    # Image by image, so that only one image's masks are held as floats at a time.
    for union, own, own_masks in zip(unions, *parts, strict=True):
        sums = own.T @ own_masks.flatten(1).float()  # (K, n) @ (n, Mh*Mw)
        # Of zeros and ones, rounded or not; as booleans all but zero are true.
        union.copy_(sums.view_as(union))
    return unions


def union_of_masks(masks: Tensor, image_index: Tensor, num_images: int) -> Tensor:
    """Pixels (B, Mh, Mw) bool of each image that at least one of its masks covers."""
    unions = [
        own.amax(dim=0) if len(own) else masks.new_zeros(masks.shape[1:])
        for own in split_by_image(masks, image_index, num_images)
    ]
    return torch.stack(unions)


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
        """All masks of a batch that have more than one pixel at the mask resolution.

        Returns:
            Masks (N, Mh, Mw) bool on ``device``, and the image (N,) int64 of each, ascending, on
            the host.

        Raises:
            ValueError: see :func:`gather_training_masks`.
        """
        if self.dino is None:
            return gather_training_masks(batched_inputs, self.resolution, device)
        masks = torch.stack(self.dino(batched_inputs, device))  # (B, k, Mh, Mw)
        is_kept = exceeds_one_pixel(masks).cpu()  # (B, k); the host waits for this
        image_index, _ = is_kept.nonzero().T
        kept = to_device(is_kept.flatten().nonzero()[:, 0], device)
        return masks.flatten(0, 1)[kept], image_index


def gather_training_masks(
    batched_inputs: Sequence[Mapping[str, Any]], resolution: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """All masks of a batch that have more than one pixel at the mask resolution.

    Args:
        batched_inputs: one dict per image, with ``masks`` (n, Mh, Mw) bool, with what
            :func:`pack_sample` made of them, or with ``instances`` whose ``gt_masks`` are BitMasks
            at any resolution, resized by nearest neighbor.
        resolution: (Mh, Mw).
        device: of the masks.

    Returns:
        Masks (N, Mh, Mw) bool, and the image (N,) int64 of each, ascending, on the host.

    Raises:
        ValueError: masks of another size, of another type, or none of the two keys.
    """
    per_image = [_read_masks(inputs, resolution, device) for inputs in batched_inputs]
    counts = torch.tensor([len(masks) for masks in per_image])
    image_index = torch.arange(len(per_image)).repeat_interleave(counts)
    return torch.cat(per_image), image_index


def _read_masks(
    inputs: Mapping[str, Any], resolution: tuple[int, int], device: torch.device
) -> Tensor:
    is_packed = "packed_masks" in inputs
    if is_packed:
        masks = unpack_masks(to_device(inputs["packed_masks"], device), resolution[1])
    elif "masks" in inputs:
        masks = inputs["masks"].bool()
    else:
        masks = _resize(_read_bitmasks(inputs), resolution)
    if tuple(masks.shape[1:]) != resolution:
        raise ValueError(
            f"'masks' has shape {tuple(masks.shape)}; expected N masks of {resolution}, "
            "MODEL.PIXELCLIP.MASK_RESOLUTION. Masks at image resolution go into 'instances' as "
            "gt_masks."
        )
    return masks if is_packed else to_device(masks[exceeds_one_pixel(masks)], device)


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
