import pytest
from detectron2.data import DatasetCatalog
from detectron2.utils import comm

from pixelclip.evaluation.loader import build_evaluation_loader

from .conftest import NAMES


def stem_of(record):
    return record["file_name"].rsplit("/", 1)[-1]


@pytest.mark.parametrize(("batch_size", "sizes"), [(1, [1, 1, 1]), (2, [2, 1]), (5, [3])])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_every_record_comes_once_and_in_order(labeled_sets, batch_size, sizes, num_workers):
    batches = list(build_evaluation_loader(NAMES[0], stem_of, batch_size, num_workers))
    assert [len(batch) for batch in batches] == sizes
    expected = [stem_of(record) for record in DatasetCatalog.get(NAMES[0])]
    assert [stem for batch in batches for stem in batch] == expected


def test_processes_share_the_records(labeled_sets, monkeypatch):
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        loader = build_evaluation_loader(NAMES[0], stem_of, 2, 0)
        shares.append([stem for batch in loader for stem in batch])
    assert sum(shares, []) == [stem_of(record) for record in DatasetCatalog.get(NAMES[0])]
    assert all(shares)


def test_a_batch_size_below_one_is_refused(labeled_sets):
    with pytest.raises(ValueError, match=r"TEST\.IMS_PER_BATCH is 0"):
        build_evaluation_loader(NAMES[0], stem_of, 0, 0)
