"""Every name that the outside relies on is registered, any number of times."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from pixelclip.data.datasets import BENCHMARKS, register_all
from pixelclip.data.datasets.sem_seg_benchmark import SemSegBenchmark
from pixelclip.data.vocabularies import get_vocabulary

NAMES = [
    "sa1b_train",
    "coco_2017_train_stuff_masks",
    "coco_2017_test_stuff_all_sem_seg",
    "ade20k_150_test_sem_seg",
    "context_59_test_sem_seg",
    "cityscapes_fine_sem_seg_val",
    "voc_2012_test_sem_seg",
    "context_60_test_sem_seg",
    "voc_2012_21_test_sem_seg",
]


def test_registering_twice_changes_nothing() -> None:
    register_all()
    first = dict(DatasetCatalog)
    register_all()
    assert dict(DatasetCatalog) == first
    assert set(NAMES) <= set(first)


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_class_names_are_the_vocabulary(benchmark: SemSegBenchmark) -> None:
    register_all()
    metadata = MetadataCatalog.get(benchmark.name)
    assert isinstance(benchmark.vocabulary, str)
    assert metadata.stuff_classes == list(get_vocabulary(benchmark.vocabulary))
    assert metadata.vocabulary == benchmark.vocabulary


def test_only_the_benchmarks_with_background_say_so() -> None:
    register_all()
    found = {}
    for benchmark in BENCHMARKS:
        metadata = MetadataCatalog.get(benchmark.name)
        index = getattr(metadata, "background_index", None)
        if index is not None:
            found[benchmark.name] = (index, metadata.stuff_classes[index])
    assert found == {
        "context_60_test_sem_seg": (59, "background"),
        "voc_2012_21_test_sem_seg": (20, "background"),
    }
