"""The training loss.

Shapes: B images, K clusters, mask resolution (Mh, Mw).
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
    with torch.autocast(logits.device.type, enabled=False):
        logits = F.interpolate(
            logits.float(), size=targets.shape[-2:], mode="bilinear", align_corners=False
        )
        covered = targets.amax(dim=1, keepdim=True)  # (B, 1, Mh, Mw)
        loss = F.binary_cross_entropy_with_logits(logits, targets, weight=covered, reduction="sum")
        pixels = sum_over_processes(covered.sum())
        return loss * comm.get_world_size() / (pixels.clamp(min=1) * targets.shape[1])
