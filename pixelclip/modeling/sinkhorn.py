"""Balanced assignment of masks to clusters by Sinkhorn's normalisations.

Shapes: N masks, K clusters.
"""

import torch
from torch import Tensor


@torch.no_grad()
def sinkhorn(logits: Tensor, num_iterations: int = 3) -> Tensor:
    """Soft assignment whose clusters share all masks about equally.

    Each round scales every cluster to the same total over the masks, then every mask to a total of
    one. (The published code also divides by the grand total and by K; the masks' normalisation
    cancels both.) Source: paper section 3.2, equation of the assignment.

    Args:
        logits: (N, K) similarities of the masks of all processes to the clusters; N may be zero.
        num_iterations: number of rounds, at least 1.

    Returns:
        (N, K) float32, each row summing to 1.
    """
    with torch.autocast(logits.device.type, enabled=False):
        assignment = logits.float().softmax(dim=1)
        # A cluster to which every mask's softmax underflows has total 0; dividing by it gives NaN.
        smallest = torch.finfo(assignment.dtype).tiny
        for _ in range(num_iterations):
            cluster_totals = assignment.sum(dim=0)  # (K,)
            assignment = assignment / cluster_totals.clamp(min=smallest)
            assignment = assignment / assignment.sum(dim=1, keepdim=True)
    return assignment
