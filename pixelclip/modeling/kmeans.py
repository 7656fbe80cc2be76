"""k-means over batches, on the device of the features.

Shapes: B sets of N features of d channels each, k clusters.

All of it is computed in float64: distances of nearby features are differences of large numbers,
and a result must not depend on how a device rounds.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# Of the mean squared distance: what is nearer to its centre is no reason to move a centre there.
_NEGLIGIBLE = 1e-12


class Clustering(NamedTuple):
    """Clusters of B sets of features."""

    assignment: Tensor
    """(B, N) int64 in 0..k-1, each feature's cluster."""
    centres: Tensor
    """(B, k, d) float64, the means of the clusters' features."""


@torch.no_grad()
def kmeans(
    features: Tensor, num_clusters: int, seeds: Sequence[int], max_iterations: int = 50
) -> Clustering:
    """Cluster each set of features by k-means with k-means++'s choice of the first centres.

    A set's result follows from its features and its seed alone, whatever else is in the batch.
    With fewer different features than clusters, some clusters stay empty.

    Args:
        features: (B, N, d) float, finite.
        num_clusters: k, at least 1.
        seeds: B integers.
        max_iterations: see :func:`refine_centres`.

    Raises:
        ValueError: another shape or number of seeds, no features, values that are not finite, or no
            clusters.

    Source: Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", 2007.
    """
    _check(features, num_clusters, seeds)
    centred = _centre(features)
    found = refine_centres(centred, _choose_centres(centred, num_clusters, seeds), max_iterations)
    mean = features.double().mean(dim=1, keepdim=True)  # (B, 1, d)
    return Clustering(found.assignment, found.centres + mean)


@torch.no_grad()
def refine_centres(features: Tensor, centres: Tensor, max_iterations: int = 50) -> Clustering:
    """Move given centres as k-means does: Lloyd's iterations until no feature changes its cluster.

    The centre of a cluster that loses all its features moves to the feature that is farthest from
    its own centre; the next empty cluster's to the next one.

    Args:
        features: (B, N, d) float.
        centres: (B, k, d) float.
        max_iterations: after so many iterations it stops in any case; at least 1.
    """
    features, centres = features.double(), centres.double()
    assignment = torch.full(features.shape[:2], -1, device=features.device)
    for _ in range(max_iterations):
        before, assignment = assignment, _nearest(features, centres)
        if torch.equal(assignment, before):
            break
        centres = _update(features, centres, assignment)
    return Clustering(assignment, centres)


def _check(features: Tensor, num_clusters: int, seeds: Sequence[int]) -> None:
    if features.dim() != 3 or not features.shape[1] or len(seeds) != len(features):
        raise ValueError(
            f"k-means got features of shape {tuple(features.shape)} and {len(seeds)} seeds; "
            "expected (sets, features, channels), at least one feature, and a seed for each set."
        )
    if num_clusters < 1:
        raise ValueError(f"k-means was asked for {num_clusters} clusters; expected at least 1.")
    if not features.isfinite().all():
        raise ValueError("k-means got features that are infinite or NaN.")


def _centre(features: Tensor) -> Tensor:
    """Features (B, N, d) float64 about zero, so that equal ones have a distance of exactly zero."""
    exact = features.double()
    return exact - exact.mean(dim=1, keepdim=True)


def _choose_centres(features: Tensor, num_clusters: int, seeds: Sequence[int]) -> Tensor:
    """First centres (B, k, d): features drawn by their squared distance from those before.

    The smallest of exponential waiting times, divided by the weights, falls on each feature with
    the probability that its weight asks for.
    """
    waiting_times = _draw_waiting_times(num_clusters, features.shape[1], seeds)
    images = torch.arange(len(features), device=features.device)
    distances = torch.ones(features.shape[:2], dtype=torch.float64, device=features.device)
    chosen: list[Tensor] = []
    for waiting_time in waiting_times.to(features.device).unbind(dim=1):  # each (B, N)
        latest = features[images, (waiting_time / distances).argmin(dim=1)]  # (B, d)
        to_latest = (features - latest[:, None]).square().sum(dim=2)  # (B, N)
        distances = torch.minimum(distances, to_latest) if chosen else to_latest
        chosen.append(latest)
    return torch.stack(chosen, dim=1)


def _draw_waiting_times(num_clusters: int, num_features: int, seeds: Sequence[int]) -> Tensor:
    """(B, k, N) float64, from generators of their own: the same on every device."""
    times = torch.empty(len(seeds), num_clusters, num_features, dtype=torch.float64)
    for of_set, seed in zip(times, seeds, strict=True):
        of_set.exponential_(generator=torch.Generator().manual_seed(seed))
    return times


def _nearest(features: Tensor, centres: Tensor) -> Tensor:
    """Index (B, N) of the nearest centre, the first one of several."""
    # By products of matrices, the distances to two equal centres could differ by rounding.
    distances = torch.cdist(features, centres, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.argmin(dim=2)  # (B, N, k) -> (B, N)


def _update(features: Tensor, centres: Tensor, assignment: Tensor) -> Tensor:
    """Means (B, k, d) of the clusters; an empty one's centre moves, see :func:`refine_centres`."""
    num_clusters = centres.shape[1]
    membership = F.one_hot(assignment, num_clusters).double()  # (B, N, k)
    counts = membership.sum(dim=1)[:, :, None]  # (B, k, 1)
    means = membership.transpose(1, 2) @ features / counts.clamp(min=1)  # (B, k, d)
    is_empty = counts == 0
    if not is_empty.any():
        return means
    return torch.where(is_empty, _places_for(is_empty, features, centres, assignment), means)


def _places_for(is_empty: Tensor, features: Tensor, centres: Tensor, assignment: Tensor) -> Tensor:
    """New centres (B, k, d): for the n-th empty cluster the n-th farthest feature.

    Where that one lies on its centre already, the cluster keeps its own.
    """
    own = centres.gather(1, assignment[:, :, None].expand_as(features))  # (B, N, d)
    distances = (features - own).square().sum(dim=2)  # (B, N)
    order = distances.argsort(dim=1, descending=True, stable=True)
    rank = (is_empty[:, :, 0].long().cumsum(dim=1) - 1).clamp(0, order.shape[1] - 1)  # (B, k)
    index = order.gather(1, rank)  # (B, k)
    farthest = features.gather(1, index[:, :, None].expand_as(centres))  # (B, k, d)
    scale = features.square().sum(dim=2).mean(dim=1)  # (B,)
    is_far = distances.gather(1, index) > _NEGLIGIBLE * scale[:, None]
    return torch.where(is_far[:, :, None], farthest, centres)
