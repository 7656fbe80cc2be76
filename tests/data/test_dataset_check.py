"""The check of data sets: what is missing or wrong is named with what fixes it."""

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

import pixelclip  # noqa: F401  registers the data sets
from pixelclip.data.dataset_check import (
    DATASETS,
    DatasetStatus,
    check_dataset,
    format_statuses,
)
from pixelclip.data.datasets import register_sem_seg_folder
from pixelclip.data.datasets.ade20k_150 import ADE20K_150, prepare_ade20k_150
from pixelclip.data.datasets.coco_stuff import MASK_FOLDERS, prepare_coco_stuff_masks
from pixelclip.data.datasets.pascal_context import prepare_pascal_context
from pixelclip.data.datasets.pascal_voc import prepare_pascal_voc
from tests.data.sa1b_files import (
    annotation_bytes,
    image_bytes,
    random_image,
    random_masks,
    write_files,
)

ADE = ADE20K_150.name
SEED = 3


@pytest.fixture(autouse=True)
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    monkeypatch.setenv("SAM_DATASETS", str(tmp_path / "sa1b"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _change_label(path: Path, value: int) -> None:
    with Image.open(path) as image:
        label = np.array(image)
    label[0, 0] = value
    Image.fromarray(label).save(path)


@pytest.mark.parametrize("name", DATASETS)
def test_an_empty_root_has_no_data_set(name: str, tmp_path: Path) -> None:
    status = check_dataset(name)
    assert not status.is_usable
    assert (status.num_images, status.num_annotations, status.summary) == (0, 0, "not there")
    assert str(tmp_path) in status.problems[0]


def test_official_numbers() -> None:
    assert [check_dataset(name).official for name in DATASETS] == [
        *("", "5000", "2000", "5104 or 5105", "500", "1449", "5104 or 5105", "1449")
    ]
    assert check_dataset("coco_2017_train_stuff_masks").official == "118287"


def test_labels_that_are_not_prepared_get_the_command(ade_root: Path) -> None:
    status = check_dataset(ADE)
    assert (status.num_images, status.num_annotations, status.summary) == (5, 0, "not usable")
    command = f"pixelclip datasets prepare ade20k_150 --root {shlex.quote(str(ade_root))}"
    assert command in status.problems[0]


def test_a_prepared_data_set_is_usable_whatever_its_number(ade_root: Path) -> None:
    prepare_ade20k_150(ade_root, workers=1)
    status = check_dataset(ADE, deep=True)
    assert status.is_usable
    assert (status.num_images, status.num_annotations) == (5, 5)
    (note,) = status.notes
    assert note.startswith(f"{ADE}: 5 images instead of the official 2000;")


@pytest.mark.parametrize(
    ("fixture", "prepare", "names"),
    [
        ("voc_root", prepare_pascal_voc, ["voc_2012_test_sem_seg", "voc_2012_21_test_sem_seg"]),
        ("context_root", prepare_pascal_context, ["context_59_test_sem_seg"]),
        ("context_root", prepare_pascal_context, ["context_60_test_sem_seg"]),
    ],
)
def test_images_that_are_not_in_the_list_do_not_count(
    fixture: str, prepare: Callable, names: list[str], request: pytest.FixtureRequest
) -> None:
    prepare(request.getfixturevalue(fixture), workers=1)
    for name in names:
        status = check_dataset(name, deep=True)
        assert (status.problems, status.num_images, status.num_annotations) == ((), 3, 3)


@pytest.mark.parametrize("value", [150, 254])
def test_a_value_outside_the_classes_is_found_and_the_remedy_fixes_it(
    ade_root: Path, value: int
) -> None:
    prepare_ade20k_150(ade_root, workers=1)
    wrong = ade_root / ADE20K_150.label_folder / "ADE_val_00000002.png"
    _change_label(wrong, value)
    (problem,) = check_dataset(ADE, deep=True).problems
    assert f"{wrong}: holds the values [{value}], expected 0..149, 255" in problem
    assert "1 of the 5 images" in problem
    assert "Delete these files" in problem
    assert f"run: {ADE20K_150.prepare_command}" in problem
    wrong.unlink()
    prepare_ade20k_150(ade_root, workers=1)
    assert check_dataset(ADE, deep=True).is_usable


def test_a_label_that_is_cut_off_or_of_another_size_is_found(ade_root: Path) -> None:
    prepare_ade20k_150(ade_root, workers=1)
    labels = sorted((ade_root / ADE20K_150.label_folder).iterdir())
    labels[0].write_bytes(labels[0].read_bytes()[:40])
    Image.new("L", (3, 3)).save(labels[4])
    (problem,) = check_dataset(ADE, deep=True).problems
    assert "2 of the 5 images" in problem
    assert "ADE_val_00000001.png: the label cannot be read" in problem
    assert "ADE_val_00000005.png: mode L and size (3, 3)" in problem


def test_without_deep_some_labels_are_read_evenly(
    own_folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for path in own_folders[1].iterdir():
        _change_label(path, 77)
    (problem,) = check_dataset("own_for_check").problems
    assert "15 of the 15 images" in problem
    assert "45" not in capsys.readouterr().err
    (problem,) = check_dataset("own_for_check", deep=True).problems
    assert "45 of the 45 images" in problem
    assert "Fix or replace" in problem
    assert "45/45" in capsys.readouterr().err


@pytest.fixture
def own_folders(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """45 images with labels 0, 1 and 7 for void, registered as ``own_for_check``."""
    images, labels = tmp_path / "own/images", tmp_path / "own/labels"
    for folder in (images, labels):
        folder.mkdir(parents=True)
    for index in range(45):
        Image.new("RGB", (4, 3)).save(images / f"{index}.png")
        Image.fromarray(np.array([[0, 1, 7, 1]] * 3, np.uint8)).save(labels / f"{index}.png")
    register_sem_seg_folder("own_for_check", images, labels, ["a", "b"], ignore_label=7)
    yield images, labels
    DatasetCatalog.remove("own_for_check")
    MetadataCatalog.remove("own_for_check")


def test_a_folder_of_a_user(own_folders: tuple[Path, Path]) -> None:
    status = check_dataset("own_for_check", deep=True)
    assert status == DatasetStatus("own_for_check", 45, 45, "")
    assert status.summary == "usable"
    (own_folders[0] / "3.jpg").touch()
    assert "have one name" in check_dataset("own_for_check").problems[0]


def _write_images(folder: Path, number: int) -> None:
    masks = random_masks(SEED, 3, 12, 16)
    image = image_bytes(random_image(SEED, 12, 16))
    for index in range(number):
        write_files(folder, {f"{index}.jpg": image, f"{index}.json": annotation_bytes(masks)})


def test_images_with_masks(tmp_path: Path) -> None:
    _write_images(tmp_path / "sa1b", 4)
    status = check_dataset("sa1b_train", deep=True)
    assert status == DatasetStatus("sa1b_train", 4, 4, "")
    (tmp_path / "sa1b/1.jpg").write_bytes(b"no image")
    (tmp_path / "sa1b/2.json").write_bytes(annotation_bytes(random_masks(SEED, 1, 9, 9)))
    status = check_dataset("sa1b_train", deep=True)
    assert status.is_usable
    assert "2 of the 4 images" in status.notes[0]
    assert "Training skips them" in status.notes[0]
    for index in (0, 3):
        (tmp_path / f"sa1b/{index}.json").write_text(json.dumps({"annotations": []}))
    assert not check_dataset("sa1b_train", deep=True).is_usable


def test_masks_of_coco_stuff(coco_stuff_root: Path) -> None:
    name = "coco_2017_val_stuff_masks"
    status = check_dataset(name)
    assert (status.num_images, status.num_annotations, status.is_usable) == (4, 0, False)
    assert "prepare coco_stuff_masks" in status.problems[0]
    prepare_coco_stuff_masks(coco_stuff_root, workers=1, split="val2017")
    (note,) = check_dataset(name, deep=True).notes
    assert note.startswith(f"{name}: 4 images instead of the official 5000")
    (coco_stuff_root / MASK_FOLDERS[2] / "val2017/000000000002.json").write_text("{")
    assert "1 of the 4 images" in check_dataset(name, deep=True).notes[1]


@pytest.mark.parametrize("name", ["", "nowhere", "coco_2017_val"])
def test_other_data_sets_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' cannot be checked. Known are sa1b_train"):
        check_dataset(name)


def test_the_table_has_a_line_for_each_and_the_texts_below() -> None:
    statuses = [
        DatasetStatus("first", 3, 2, "5", problems=("first: missing. Run: x",)),
        DatasetStatus("second", 5, 5, "", notes=("second: odd",)),
        DatasetStatus("third", 5, 5, ""),
    ]
    lines = format_statuses(statuses).splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["first", "second", "third"]
    assert [line.rpartition("  ")[2] for line in lines[2:5]] == [
        *("not usable", "usable, see below", "usable"),
    ]
    assert [line for line in lines[5:] if line] == [
        "error: first: missing. Run: x",
        "note: second: odd",
    ]
