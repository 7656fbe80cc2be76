"""k-means agrees with SciPy's, and depends on features and seeds alone."""

import pytest
import torch
from scipy.cluster.vq import kmeans2

from pixelclip.modeling import kmeans as kmeans_module
from pixelclip.modeling.kmeans import best_kmeans, kmeans


def random_features(sets=3, count=60, channels=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sets, count, channels, generator=generator)


@pytest.mark.parametrize("iterations", [1, 4, 50])
def test_from_the_same_centers_it_agrees_with_scipy(iterations, monkeypatch):
    features = random_features().double()
    starts = features[:, 10:17]
    mean = features.mean(dim=1, keepdim=True)
    monkeypatch.setattr(kmeans_module, "_choose_centers", lambda *_: starts - mean)
    found = kmeans(features, 7, [0, 0, 0], iterations)
    for one, start, assignment, means in zip(features, starts, *found, strict=True):
        expected, labels = kmeans2(one.double().numpy(), start.numpy(), iterations, minit="matrix")
        assert assignment.tolist() == labels.tolist()
        assert means.numpy() == pytest.approx(expected, abs=1e-10)


def test_it_ends_where_no_feature_is_nearer_to_another_center():
    features = random_features().double()
    assignment, centers = kmeans(features, 7, [0, 1, 2], max_iterations=1000)
    distances = torch.cdist(features, centers)
    assert torch.equal(assignment, distances.argmin(dim=2))
    for members, one, means in zip(assignment, features, centers, strict=True):
        for cluster, mean in enumerate(means):
            torch.testing.assert_close(one[members == cluster].mean(dim=0), mean)


def test_a_set_depends_on_its_seed_and_not_on_the_batch():
    features = random_features()
    together = kmeans(features, 6, [5, 6, 7])
    backwards = kmeans(features.flip(0), 6, [7, 6, 5])
    for index, seed in enumerate([5, 6, 7]):
        alone = kmeans(features[index : index + 1], 6, [seed])
        for batch, place in ((together, index), (backwards, 2 - index)):
            assert torch.equal(alone.assignment[0], batch.assignment[place])
            torch.testing.assert_close(alone.centers[0], batch.centers[place])
    other = kmeans(features, 6, [8, 9, 10])
    assert not torch.equal(together.assignment, other.assignment)


def test_the_global_generator_is_neither_used_nor_changed():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = kmeans(random_features(), 4, [1, 2, 3])
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(first.assignment, kmeans(random_features(), 4, [1, 2, 3]).assignment)


def test_clear_groups_are_found():
    """k-means++ starts in every group where the groups are far apart."""
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(4).repeat(25)[torch.randperm(100, generator=generator)]
    features = 1000.0 * torch.eye(4)[groups] + torch.randn(100, 4, generator=generator)
    for seed in range(10):
        assignment = kmeans(features[None], 4, [seed]).assignment[0]
        pairs = set(zip(groups.tolist(), assignment.tolist(), strict=True))
        assert len(pairs) == 4
        assert {cluster for _, cluster in pairs} == {0, 1, 2, 3}


def test_the_first_centers_are_drawn_by_squared_distance():
    """Of two features, at 1 and 3 from twenty at zero, the second is drawn nine times as often."""
    features = torch.zeros(1, 22, 1)
    features[0, 20:, 0] = torch.tensor([1.0, -3.0])
    features = features.expand(600, -1, -1)
    # One iteration: the other of the two is still with the zeros, or with its first neighbor.
    assignment = kmeans(features, 2, range(600), max_iterations=1).assignment
    starts_at_zero = assignment[:, :20].eq(assignment[:, :1]).all(dim=1)
    assert starts_at_zero.all()
    is_alone = assignment[:, :20, None].ne(assignment[:, None, 20:]).all(dim=1)  # (600, 2)
    share = (is_alone[:, 1] & ~is_alone[:, 0]).float().mean()
    assert share > 0.85


@pytest.mark.parametrize("different", [1, 3])
def test_fewer_different_features_than_clusters(different):
    features = random_features(1, different).repeat(1, 8, 1)
    assignment, centers = kmeans(features, 5, [0])
    assert len(assignment.unique()) == different
    torch.testing.assert_close(centers[0, assignment[0]], features[0])


def test_more_clusters_than_features():
    features = random_features(2, 3)
    assignment, centers = kmeans(features, 8, [0, 1])
    assert centers.shape == (2, 8, 5)
    assert all(len(row.unique()) == 3 for row in assignment)


def test_no_sets_give_none():
    assignment, centers = kmeans(torch.zeros(0, 4, 3), 2, [])
    assert assignment.shape == (0, 4)
    assert centers.shape == (0, 2, 3)


def test_the_tightest_clustering_wins():
    (features,) = random_features(sets=1).double()
    seeds = list(range(8))
    found = best_kmeans(features, 7, seeds)
    each = [kmeans(features[None], 7, [seed]) for seed in seeds]
    totals = [(features - c[0][a[0]]).square().sum().item() for a, c in each]
    assert min(totals) < 0.99 * max(totals)
    assert torch.equal(found, each[totals.index(min(totals))].assignment[0])
    assert torch.equal(found, best_kmeans(features, 7, seeds[::-1]))
