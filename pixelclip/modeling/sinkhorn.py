"""Balanced assignment of masks to clusters by Sinkhorn's normalisations.

Shapes: N masks in this process, K clusters.
"""

import torch
from torch import Tensor

from pixelclip.distributed import sum_over_processes


@torch.no_grad()
def sinkhorn(logits: Tensor, num_iterations: int = 3) -> Tensor:
    """Soft assignment whose clusters share all masks about equally.

    Each round scales every cluster to the same total over the masks of all processes, then every
    mask to a total of one. (The published code also divides by the grand total and by K; the
    masks' normalisation cancels both.) Every process must call it, also one without masks: only
    the cluster totals travel between them. Source: paper section 3.2, equation of the assignment.

    Args:
        logits: (N, K) similarities of this process's masks to the clusters; N may be zero.
        num_iterations: number of rounds, at least 1.

    Returns:
        (N, K) float32, each row summing to 1.
    """
    with torch.autocast(logits.device.type, enabled=False):
        assignment = logits.float().softmax(dim=1)
        # A cluster to which every mask's softmax underflows has total 0; dividing by it gives NaN.
        smallest = torch.finfo(assignment.dtype).tiny
        for _ in range(num_iterations):
            cluster_totals = sum_over_processes(assignment.sum(dim=0))  # (K,)
            assignment = assignment / cluster_totals.clamp(min=smallest)
            assignment = assignment / assignment.sum(dim=1, keepdim=True)
    return assignment
