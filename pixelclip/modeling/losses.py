"""The training loss.

Shapes: B images, K clusters, N masks in this process, mask resolution (Mh, Mw).
"""

import torch
from detectron2.utils import comm
from torch import Tensor
from torch.nn import functional as F

from pixelclip.distributed import sum_over_processes


def mask_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy over all clusters, averaged over the pixels that some target covers.

    The mean is over the covered pixels of all processes, scaled by their number because
    DistributedDataParallel averages gradients; the value thus does not depend on how many
    processes share a batch. Without any covered pixel the loss is zero, with zero gradients.
    Source: paper section 3.3.

    Args:
        logits: (B, K, h, w) mask logits, resized bilinearly to the targets' resolution.
        targets: (B, K, Mh, Mw) float in {0, 1}.

    Returns:
        Scalar float32.
    """
    covered = targets.amax(dim=1, keepdim=True)  # (B, 1, Mh, Mw)
    return _weighted_cross_entropy(logits, targets, covered.expand_as(targets))


def single_mask_loss(logits: Tensor, masks: Tensor, image_index: Tensor, num_images: int) -> Tensor:
    """As :func:`mask_loss`, when each mask is a target of its own instead of a cluster's part.

    Args:
        logits: (N, h, w), one map per mask.
        masks: (N, Mh, Mw) bool.
        image_index: (N,) int64, image of each mask.
        num_images: B.
    """
    covered = masks.new_zeros((num_images, *masks.shape[1:])).float()  # (B, Mh, Mw)
    covered = covered.index_add(0, image_index, masks.float()).clamp(max=1)
    return _weighted_cross_entropy(
        logits[:, None], masks[:, None].float(), covered[image_index][:, None]
    )


def _weighted_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    with torch.autocast(logits.device.type, enabled=False):
        logits = F.interpolate(
            logits.float(), size=targets.shape[-2:], mode="bilinear", align_corners=False
        )
        loss = F.binary_cross_entropy_with_logits(logits, targets, weight=weights, reduction="sum")
        total = sum_over_processes(weights.sum())
        return loss * comm.get_world_size() / total.clamp(min=1)
