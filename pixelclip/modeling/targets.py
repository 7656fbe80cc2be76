"""What the predicted maps are compared with: unions of masks.

Shapes: N masks of (Mh, Mw), B images, K clusters, n maps.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class MaskTargets(NamedTuple):
    """Targets of n maps, and where they count: in the pixels that some mask of the image covers.

    Attributes:
        masks: (n, Mh, Mw) bool, what each map is to become.
        image_index: (n,) int64, image of each map.
        covered: (B, Mh, Mw) bool.
    """

    masks: Tensor
    image_index: Tensor
    covered: Tensor


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


def cover_images(masks: Tensor, image_index: Tensor, num_images: int) -> Tensor:
    """Pixels (B, Mh, Mw) bool of each image that at least one of its masks covers."""
    return _unions(masks, image_index, num_images)


def _unions(masks: Tensor, index: Tensor, number: int) -> Tensor:
    """Unions (number, Mh, Mw) bool of the masks with the same index (N,)."""
    # Added as bool, true and true is true.
    unions = torch.zeros((number, *masks.shape[1:]), dtype=torch.bool, device=masks.device)
    return unions.index_add_(0, index, masks)
