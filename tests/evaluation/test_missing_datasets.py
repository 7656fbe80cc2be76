from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog

from pixelclip.evaluation import missing_datasets
from pixelclip.evaluation.missing_datasets import find_missing_datasets

from .conftest import NAMES


@pytest.fixture
def register():
    names = []

    def register(name, loader):
        DatasetCatalog.register(name, loader)
        names.append(name)

    yield register
    for name in names:
        DatasetCatalog.remove(name)


def test_what_is_there_is_not_missing(labeled_sets):
    assert find_missing_datasets(NAMES) == {}


@pytest.mark.parametrize(
    "name", ["ade20k_150_test_sem_seg", "voc_2012_test_sem_seg", "cityscapes_fine_sem_seg_val"]
)
def test_what_is_missing_says_the_folder_and_the_command(labeled_sets, monkeypatch, tmp_path, name):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    missing = find_missing_datasets([NAMES[0], name])
    assert list(missing) == [name]
    assert str(tmp_path / "nowhere") in missing[name]
    assert ("python " if "city" in name else "pixelclip datasets prepare") in missing[name]
    assert "\n" not in missing[name]


def test_what_a_loader_refuses_is_missing(register):
    def refuse():
        raise AssertionError("Please generate\nthe labels")

    def refuse_silently():
        raise AssertionError

    register("refused", refuse)
    register("refused_silently", refuse_silently)
    register("empty", list)
    missing = find_missing_datasets(["refused", "refused_silently", "empty"])
    assert missing["refused"] == "Please generate the labels"
    assert missing["refused_silently"] == "AssertionError"
    assert "found no images" in missing["empty"]


def test_mistakes_in_a_loader_are_not_hidden(register):
    register("mistaken", lambda: [].undefined)
    with pytest.raises(AttributeError):
        find_missing_datasets(["mistaken"])


def test_what_one_process_lacks_is_missing_for_all(labeled_sets, monkeypatch):
    others = {NAMES[0]: None, NAMES[1]: "not on this machine", NAMES[2]: None}
    monkeypatch.setattr(missing_datasets.comm, "all_gather", lambda own: [own, others])
    assert find_missing_datasets(NAMES) == {NAMES[1]: "on process 1: not on this machine"}


def test_images_without_masks_are_missing(labeled_sets, tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    for record in DatasetCatalog.get(NAMES[0]):
        (folder / f"{Path(record['file_name']).stem}.json").touch()
    (folder / f"{NAMES[1]}_0.json").touch()
    missing = find_missing_datasets(NAMES[:2], folder)
    assert list(missing) == [NAMES[1]]
    assert f"2 of 3 images have no masks in {folder}" in missing[NAMES[1]]
    assert f"{NAMES[1]}_1.json" in missing[NAMES[1]]
