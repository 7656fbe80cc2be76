import pytest
from detectron2.data import DatasetCatalog

import pixelclip  # noqa: F401  (registers the data sets)
from pixelclip.evaluation.published_results import get_published_row


def test_rows_name_registered_data_sets():
    row = get_published_row("ViT-B/16 SA-1B")
    assert row["voc_2012_test_sem_seg"] == 85.9
    assert len(row) == 5
    assert set(row) <= set(DatasetCatalog.list())


def test_the_empty_name_is_no_row():
    assert get_published_row("") == {}


def test_unknown_rows_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'ViT-L'.*ViT-B/16 SA-1B, .*ConvNeXt-B DINO"):
        get_published_row("ViT-L")
