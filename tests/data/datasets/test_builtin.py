"""Every name that the outside relies on is registered, any number of times."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from pixelclip.data.datasets.builtin import BENCHMARKS, register_all
from pixelclip.data.datasets.sem_seg_benchmark import SemSegBenchmark
from pixelclip.data.vocabularies import get_vocabulary


def test_registering_twice_changes_nothing() -> None:
    register_all()
    first = dict(DatasetCatalog)
    register_all()
    assert dict(DatasetCatalog) == first
    assert {"sa1b_train", "ade20k_150_test_sem_seg", "voc_2012_test_sem_seg"} <= set(first)


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_class_names_are_the_vocabulary(benchmark: SemSegBenchmark) -> None:
    register_all()
    classes = MetadataCatalog.get(benchmark.name).stuff_classes
    assert classes == list(get_vocabulary(benchmark.vocabulary))
