"""What a training step tells about itself, through Detectron2's event storage.

Scalars: ``clusters/used`` (share of the clusters with at least one mask), ``clusters/largest``
(share of the masks in the fullest cluster) and ``clusters/assignment_entropy``, of the masks of all
processes, and ``teacher/agreement``, of this process's images. They stay tensors, which a storage
turns into numbers when it needs them.

Shapes: N masks, K clusters, B images, feature grid h x w, d channels.
"""

import math

import torch
from detectron2.utils.events import EventStorage, get_event_storage
from torch import Tensor
from torch.nn.functional import cosine_similarity


@torch.no_grad()
def report_clusters(probabilities: Tensor) -> None:
    """Record how evenly and how surely masks (N, K) are assigned; nothing without masks."""
    storage = _current_storage()
    if storage is None or not len(probabilities):
        return
    masks, clusters = probabilities.shape
    numbers = torch.arange(clusters, device=probabilities.device)
    usage = (probabilities.argmax(dim=1)[:, None] == numbers).sum(dim=0)  # (K,)
    storage.put_scalar("clusters/used", (usage > 0).float().mean())
    storage.put_scalar("clusters/largest", usage.max() / masks)
    storage.put_scalar("clusters/assignment_entropy", assignment_entropy(probabilities))


@torch.no_grad()
def report_agreement(teacher: Tensor, student: Tensor) -> None:
    """Record the mean cosine of the two features (B, h, w, d) at each place."""
    storage = _current_storage()
    if storage is not None:
        agreement = cosine_similarity(teacher.float(), student.float(), dim=-1).mean()
        storage.put_scalar("teacher/agreement", agreement)


def assignment_entropy(probabilities: Tensor) -> Tensor:
    """Mean entropy of the masks' assignments, in units of the largest possible one.

    Args:
        probabilities: (N, K), each row summing to 1; N may be zero.

    Returns:
        Scalar in 0..1: 0 where each mask belongs to one cluster alone, 1 where all clusters suit
        all masks equally well; 0 without masks or with a single cluster.
    """
    number, clusters = probabilities.shape
    total = torch.special.entr(probabilities.float()).sum()
    return total / (max(number, 1) * math.log(max(clusters, 2)))


def _current_storage() -> EventStorage | None:
    try:
        return get_event_storage()
    except AssertionError:  # the model runs outside of a trainer
        return None
