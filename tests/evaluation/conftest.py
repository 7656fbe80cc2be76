"""Three labeled data sets, and configs that evaluate a tiny model on them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import CfgNode

from .labeled_sets import make_labels, register_labeled_set, remove_labeled_set

NAMES = ("first_sem_seg", "second_sem_seg", "third_sem_seg")


@pytest.fixture
def labeled_sets(tmp_path: Path) -> Iterator[dict[str, list[np.ndarray]]]:
    """The label maps of three registered data sets."""
    labels = {name: make_labels(seed) for seed, name in enumerate(NAMES)}
    for name, label_maps in labels.items():
        register_labeled_set(tmp_path / name, name, label_maps)
    yield labels
    for name in labels:
        remove_labeled_set(name)


@pytest.fixture
def test_config(tiny_config: CfgNode, labeled_sets: dict, tmp_path: Path) -> CfgNode:
    """Evaluates a tiny ViT on the three data sets."""
    cfg = tiny_config
    cfg.DATASETS.TEST = tuple(labeled_sets)
    cfg.INPUT.MIN_SIZE_TEST = 32
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    return cfg
