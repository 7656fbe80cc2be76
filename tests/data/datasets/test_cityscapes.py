"""Cityscapes: Detectron2's names, train ids by the data set's own tool, a root that may change."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from cityscapesscripts.helpers.labels import id2label, trainId2label
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin import register_all_cityscapes
from PIL import Image

from pixelclip.data.datasets.cityscapes import CITYSCAPES_19, register_cityscapes

NAME = "cityscapes_fine_sem_seg_val"


def _remove_all() -> None:
    for catalog in (DatasetCatalog, MetadataCatalog):
        for name in [name for name in catalog.list() if name.startswith("cityscapes_fine_i")]:
            catalog.remove(name)
        for name in [name for name in catalog.list() if name.startswith("cityscapes_fine_sem")]:
            catalog.remove(name)


@pytest.fixture
def detectron2_entry() -> Iterator[None]:
    """The catalogs as Detectron2 leaves them, and afterwards as they were."""
    before = dict(DatasetCatalog), dict(MetadataCatalog)
    _remove_all()
    register_all_cityscapes("fixed/root")
    yield
    for catalog, entries in zip((DatasetCatalog, MetadataCatalog), before, strict=True):
        catalog.clear()
        catalog.update(entries)


def test_what_is_not_the_root_is_what_detectron2_says(detectron2_entry: None) -> None:
    theirs = MetadataCatalog.get(NAME)
    register_cityscapes()
    ours = MetadataCatalog.get(NAME)
    assert ours is not theirs
    for key in ("stuff_classes", "evaluator_type", "ignore_label"):
        assert getattr(ours, key) == getattr(theirs, key)
    assert theirs.gt_dir == f"fixed/root/{CITYSCAPES_19.label_folder}/"
    assert theirs.image_dir == f"fixed/root/{CITYSCAPES_19.image_folder}/"


def test_class_names_are_those_of_cityscapesscripts() -> None:
    names = [trainId2label[index].name for index in range(19)]
    assert list(CITYSCAPES_19.class_names) == names


def test_folders_follow_the_environment(
    detectron2_entry: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_cityscapes()
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    metadata = MetadataCatalog.get(NAME)
    assert metadata.gt_dir == str(tmp_path / "cityscapes/gtFine/val")
    assert metadata.image_dir == str(tmp_path / "cityscapes/leftImg8bit/val")


def test_an_entry_of_another_project_stays(detectron2_entry: None) -> None:
    DatasetCatalog.remove(NAME)
    DatasetCatalog.register(NAME, lambda: [{"file_name": "mine"}])
    register_cityscapes()
    assert DatasetCatalog.get(NAME) == [{"file_name": "mine"}]


def test_the_command_of_the_error_makes_the_train_ids(
    detectron2_entry: None, cityscapes_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_cityscapes()
    monkeypatch.setenv("DETECTRON2_DATASETS", str(cityscapes_root))
    command = CITYSCAPES_19.prepare_command
    assert command is not None
    with pytest.raises(FileNotFoundError, match="3 of 3 files are missing") as caught:
        DatasetCatalog.get(NAME)
    assert f"Run: {command}" in str(caught.value)
    search_path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    subprocess.run(
        command, shell=True, check=True, env=os.environ | {"PATH": search_path}, timeout=600
    )
    records = DatasetCatalog.get(NAME)
    names = [Path(record["file_name"]).name for record in records]
    assert names == [f"{name}_leftImg8bit.png" for name in ("a_1", "a_2", "b_1")]
    for record, train_id in zip(records, (0, 18, 255), strict=True):
        with Image.open(record["sem_seg_file_name"]) as image:
            label = np.array(image)
        assert (label[4:12] == train_id).all()
        assert (label[:4] == 255).all()


def test_the_real_layout_needs_no_polygons(
    detectron2_entry: None, copy_real: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = copy_real("cityscapes")
    register_cityscapes()
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    for record in DatasetCatalog.get(NAME):
        with Image.open(record["sem_seg_file_name"]) as train_ids:
            label = np.array(train_ids)
        with Image.open(record["sem_seg_file_name"].replace("TrainIds", "Ids")) as image:
            ids = np.array(image)
        table = np.array([id2label[i].trainId if i in id2label else 255 for i in range(256)])
        # The sample was scaled down, and its two labels differ in a few pixels at the borders.
        assert (table[ids] == label).mean() > 0.99
