"""Union of the masks that one image has in one cluster.

Shapes: N masks of (Mh, Mw), B images, K clusters.
"""

from torch import Tensor


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
        (B, K, Mh, Mw) float32 in {0, 1}.
    """
    height, width = masks.shape[1:]
    merged = masks.new_zeros((num_images * num_clusters, height, width), dtype=masks.dtype).float()
    merged.index_add_(0, image_index * num_clusters + assignment, masks.float())
    return merged.clamp_(max=1).view(num_images, num_clusters, height, width)  # (B, K, Mh, Mw)
