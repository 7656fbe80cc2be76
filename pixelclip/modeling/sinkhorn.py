"""Balanced assignment of masks to clusters by Sinkhorn's normalizations.

Shapes: N masks, K clusters, d the width of the joint space.
"""

from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from torch import Tensor
from torch.nn import functional as F

ASSIGNMENTS = ("sinkhorn", "argmax", "none")


@torch.no_grad()
def sinkhorn(logits: Tensor, num_iterations: int = 3) -> Tensor:
    """Soft assignment whose clusters share all masks about equally.

    Each round scales every cluster to the same total over the masks, then every mask to a total of
    one. (The published code also divides by the grand total and by K; the masks' normalization
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


@dataclass(frozen=True)
class MaskAssignment:
    """How masks get their clusters, without gradient.

    Args:
        method: "sinkhorn", or for comparison "argmax" (each mask its nearest cluster) or "none" (no
            clusters: each mask is a target of its own).
        scale: factor on cosines, positive.
        iterations: number of Sinkhorn rounds.

    Raises:
        ValueError: an unknown method.
    """

    method: str = "sinkhorn"
    scale: float = 100.0
    iterations: int = 3

    def __post_init__(self) -> None:
        if self.method not in ASSIGNMENTS:
            raise ValueError(
                f"MODEL.PIXELCLIP.ASSIGNMENT is {self.method!r}; it must be one of "
                f"{', '.join(ASSIGNMENTS)}."
            )

    @property
    def has_clusters(self) -> bool:
        """Whether masks share clusters at all."""
        return self.method != "none"

    @torch.no_grad()
    def logits(self, mask_features: Tensor, cluster_embeddings: Tensor) -> Tensor:
        """Scaled cosines (N, K) float32 of mask features (N, d) and cluster embeddings (K, d)."""
        with torch.autocast(mask_features.device.type, enabled=False):
            masks = F.normalize(mask_features.float(), dim=-1)
            clusters = F.normalize(cluster_embeddings.float(), dim=-1)
            return self.scale * (masks @ clusters.T)

    @torch.no_grad()
    def probabilities(self, logits: Tensor) -> Tensor:
        """Soft assignment (N, K) of the masks of all processes; each row sums to 1."""
        if self.method == "sinkhorn":
            return sinkhorn(logits, self.iterations)
        return logits.softmax(dim=1)


def build_assignment(cfg: CfgNode) -> MaskAssignment:
    """Build what ``MODEL.PIXELCLIP.ASSIGNMENT`` says."""
    node = cfg.MODEL.PIXELCLIP
    return MaskAssignment(node.ASSIGNMENT, node.ASSIGNMENT_SCALE, node.SINKHORN_ITERS)
