import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from pixelclip.analysis.clusters import (
    ClusterCounts,
    count_clusters,
    measure_agreement,
    spread,
)

TABLES = arrays(
    np.int64, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.integers(0, 9)
).filter(lambda table: table.sum() > 0)


@given(TABLES)
@settings(deadline=None)
def test_information_is_scikit_learns(table):
    metrics = pytest.importorskip("sklearn.metrics")
    clusters, classes = (
        np.repeat(i.reshape(-1), table.reshape(-1)) for i in np.indices(table.shape)
    )
    expected = metrics.normalized_mutual_info_score(classes, clusters)
    assert measure_agreement(table).nmi == pytest.approx(expected, abs=1e-9)


@given(TABLES)
def test_a_match_is_one_to_one_and_no_better_than_purity(table):
    found = measure_agreement(table)
    pairs = [(k, c) for k, c in enumerate(found.matched) if c >= 0]
    assert len(pairs) == min(table.shape)
    assert len({c for _, c in pairs}) == len(pairs)
    assert found.accuracy == pytest.approx(sum(table[pair] for pair in pairs) / table.sum())
    assert found.accuracy <= found.purity + 1e-12
    majority = [table[k, c] for k, c in enumerate(found.majority) if c >= 0]
    assert found.purity == pytest.approx(sum(majority) / table.sum())


def test_clusters_that_are_the_classes_under_other_numbers_agree_wholly():
    table = np.diag([5, 7, 2])[[2, 0, 1]]
    found = measure_agreement(table)
    assert (found.purity, found.accuracy, found.nmi) == (1, 1, pytest.approx(1))
    assert found.matched == found.majority == (2, 0, 1)
    halves = np.repeat(table, 2, axis=0)  # each class in two equal clusters
    found = measure_agreement(halves)
    assert (found.purity, found.accuracy) == (1, 0.5)


def test_independent_clusters_share_no_information():
    found = measure_agreement(np.outer([1, 2, 0], [3, 4]))
    assert found.nmi == pytest.approx(0, abs=1e-9)
    assert found.majority == (1, 1, -1)
    assert measure_agreement(np.array([[4]])).nmi == 1


def test_nothing_to_compare_is_refused():
    with pytest.raises(ValueError, match="Not a single pixel"):
        measure_agreement(np.zeros((2, 3), np.int64))


def test_pixels_are_counted_image_by_image(test_config, tiny_model, labeled_sets):
    truths = labeled_sets["first_sem_seg"]
    counts = count_clusters(test_config, tiny_model.eval(), "first_sem_seg")
    assert (counts.num_images, counts.skipped) == (3, 0)
    class_pixels = [sum((t == c).sum() for t in truths) for c in range(5)]
    assert counts.pixels.sum(axis=0).tolist() == class_pixels
    assert counts.void.sum() == sum((t == 255).sum() for t in truths) > 0
    assert counts.usage.sum() == pytest.approx(1)
    assert counts.images.max() <= 3
    assert ((counts.pixels.sum(axis=1) + counts.void > 0) == (counts.images > 0)).all()


def test_what_cannot_be_read_is_skipped_and_counted(test_config, tiny_model, labeled_sets, caplog):
    name = "first_sem_seg"
    records = DatasetCatalog.get(name)
    whole = count_clusters(test_config, tiny_model.eval(), name)
    with open(records[0]["file_name"], "wb") as file:
        file.write(b"not an image")
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(records[1]["sem_seg_file_name"])
    counts = count_clusters(test_config, tiny_model, name)
    assert (counts.num_images, counts.skipped) == (1, 2)
    assert "first_sem_seg_0.jpg is skipped" in caplog.text
    assert "first_sem_seg_1.jpg is skipped: its labels have (5, 5) pixels" in caplog.text
    assert (counts.pixels <= whole.pixels).all()


def test_counts_are_taken_again_only_for_the_same(tmp_path):
    counts = ClusterCounts(np.eye(2, 3, dtype=np.int64), np.ones(2, int), np.ones(2, int), 4, 1)
    path = tmp_path / "counts.json"
    assert ClusterCounts.load(path, {"weights": "a"}) is None
    counts.save(path, {"weights": "a"})
    loaded = ClusterCounts.load(path, {"weights": "a"})
    assert loaded.pixels.tolist() == counts.pixels.tolist()
    assert (loaded.num_images, loaded.skipped) == (4, 1)
    assert loaded.usage.tolist() == counts.usage.tolist()
    assert ClusterCounts.load(path, {"weights": "b"}) is None
    path.write_bytes(path.read_bytes()[:20])
    assert ClusterCounts.load(path, {"weights": "a"}) is None


def test_some_are_spread_over_all():
    assert spread(range(10), None) == list(range(10))
    assert spread(range(10), 20) == list(range(10))
    assert spread(range(10), 3) == [0, 4, 9]
    assert spread(range(10), 1) == [0]
