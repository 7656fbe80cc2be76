"""Two numbers that tell how a training is: how sure the clustering is, and teacher and student."""

import math

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity


@torch.no_grad()
def assignment_entropy(shares: Tensor) -> Tensor:
    """Mean entropy of the masks' assignments, in units of the largest possible one.

    Args:
        shares: (N, K), each row summing to 1; N may be zero.

    Returns:
        Scalar in 0..1: 0 where each mask belongs to one cluster alone, 1 where all clusters suit
        all masks equally well; 0 without masks or with a single cluster.
    """
    number, clusters = shares.shape
    total = torch.special.entr(shares.float()).sum()
    return total / (max(number, 1) * math.log(max(clusters, 2)))


@torch.no_grad()
def feature_agreement(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean cosine, in -1..1, of the two features (B, h, w, d) at each place; a scalar."""
    return cosine_similarity(teacher.float(), student.float(), dim=-1).mean()
