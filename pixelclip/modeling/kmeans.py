"""k-means of several sets of features at a time, on their device.

Shapes: B sets of N features of d channels, k clusters.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pixelclip.utils.transfer import to_device

# On a GPU, for which the host then waits.
_ITERATIONS_BETWEEN_CHECKS = 10


class Clustering(NamedTuple):
    """Clusters of B sets of features.

    Attributes:
        assignment: (B, N) int64 in 0..k-1, each feature's cluster.
        centers: (B, k, d), the means of the clusters' features, of their type.
    """

    assignment: Tensor
    centers: Tensor


@torch.no_grad()
def kmeans(
    features: Tensor, num_clusters: int, seeds: Sequence[int], max_iterations: int = 50
) -> Clustering:
    """Cluster each set of features by k-means, on their device, from centers of k-means++.

    A set's result follows from its features and its seed alone, but for the rounding of a feature
    halfway between two centers. A cluster that loses all its features keeps its center.

    Args:
        features: (B, N, d) float32 or float64, in which it is computed, finite; N is at least 1.
        num_clusters: k, at least 1.
        seeds: B integers.
        max_iterations: of Lloyd's iterations, which end sooner where no assignment changes.
    """
    mean = features.mean(dim=1, keepdim=True)  # (B, 1, d)
    # About zero, where distances are not differences of large numbers.
    features = features - mean
    centers = _choose_centers(features, num_clusters, seeds)
    numbers = torch.arange(num_clusters, device=features.device)
    assignment = torch.full(features.shape[:2], -1, device=features.device)
    # Where nothing changes any more, further iterations change nothing.
    period = 1 if features.device.type == "cpu" else _ITERATIONS_BETWEEN_CHECKS
    for iteration in range(1, max_iterations + 1):
        # By products of matrices, the distances to two equal centers could differ by rounding.
        distances = torch.cdist(features, centers, compute_mode="donot_use_mm_for_euclid_dist")
        before, assignment = assignment, distances.argmin(dim=2)  # (B, N, k) -> (B, N)
        if iteration % period == 0 and torch.equal(assignment, before):
            break
        members = (assignment[:, :, None] == numbers).to(features)  # (B, N, k)
        counts = members.sum(dim=1)[:, :, None]  # (B, k, 1)
        means = members.transpose(1, 2) @ features / counts.clamp(min=1)  # (B, k, d)
        centers = torch.where(counts > 0, means, centers)
    return Clustering(assignment, centers + mean)


@torch.no_grad()
def best_kmeans(features: Tensor, num_clusters: int, seeds: Sequence[int]) -> Tensor:
    """Assignment (N,) int64 of the tightest of several clusterings of the same features (N, d).

    That is the one with the smallest sum of squared distances to the centers. From a single start,
    two groups of features may end up in one cluster, and a third in two. Computed in float64.
    """
    best, smallest, features = None, torch.inf, features.double()
    for seed in seeds:
        ((assignment,), (centers,)) = kmeans(features[None], num_clusters, [seed])
        total = float((features - centers[assignment]).square().sum())
        if best is None or total < smallest:
            best, smallest = assignment, total
    assert best is not None
    return best


def _choose_centers(features: Tensor, num_clusters: int, seeds: Sequence[int]) -> Tensor:
    """First centers (B, k, d): features drawn by their squared distance from those before.

    The smallest of exponential waiting times, divided by the weights, falls on each feature with
    the probability that its weight asks for. Source: Arthur and Vassilvitskii, "k-means++", 2007.
    """
    times = torch.empty(len(seeds), num_clusters, features.shape[1], dtype=torch.float64)
    for image_times, seed in zip(times, seeds, strict=True):  # the same on every device
        image_times.exponential_(generator=torch.Generator().manual_seed(seed))
    images = torch.arange(len(features), device=features.device)
    distances = features.new_ones(features.shape[:2])
    chosen: list[Tensor] = []
    for waiting_time in to_device(times, features.device).unbind(dim=1):  # each (B, N)
        latest = features[images, (waiting_time / distances).argmin(dim=1)]  # (B, d)
        to_latest = (features - latest[:, None]).square().sum(dim=2)  # (B, N)
        distances = torch.minimum(distances, to_latest) if chosen else to_latest
        chosen.append(latest)
    return torch.stack(chosen, dim=1)
