"""PASCAL VOC-20 and VOC-21: label values, the image list, palette and grayscale labels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from pixelclip.data.datasets.pascal_voc import (
    IMAGE_LIST,
    PASCAL_VOC_20,
    PASCAL_VOC_21,
    PUBLISHED_LABEL_FOLDERS,
    TRAIN_IDS_20,
    TRAIN_IDS_21,
    prepare_pascal_voc,
)
from pixelclip.data.datasets.sem_seg_benchmark import register_sem_seg_benchmark
from pixelclip.data.vocabularies import get_vocabulary

PREPARED = PASCAL_VOC_20.label_folder
PREPARED_21 = PASCAL_VOC_21.label_folder


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def _expected(published: np.ndarray, background: int = 255) -> np.ndarray:
    """The rule pixel by pixel: 1..20 lose one, the rim is void and so is VOC-20's background."""
    special = {0: background, 255: 255}
    values = [special.get(value, value - 1) for value in published.ravel().tolist()]
    return np.array(values, dtype=np.uint8).reshape(published.shape)


def _replace_by_grayscale(root: Path) -> None:
    """Make SegmentationClassAug out of SegmentationClass: the indices as gray values."""
    palette, gray = (root / folder for folder in PUBLISHED_LABEL_FOLDERS)
    gray.mkdir()
    for path in palette.iterdir():
        Image.fromarray(_read(path)).save(gray / path.name)
        path.unlink()
    palette.rmdir()


def test_train_ids_number_the_classes_of_the_vocabulary() -> None:
    assert TRAIN_IDS_20[0] == TRAIN_IDS_20[255] == 255
    assert [TRAIN_IDS_20[value] for value in range(1, 21)] == list(range(20))
    assert len(TRAIN_IDS_20) == 22
    assert PASCAL_VOC_20.class_names[TRAIN_IDS_20[15]] == "person"


def test_background_is_the_last_class_of_voc_21() -> None:
    differing = {value for value in TRAIN_IDS_20 if TRAIN_IDS_20[value] != TRAIN_IDS_21[value]}
    assert differing == {0}
    assert TRAIN_IDS_20.keys() == TRAIN_IDS_21.keys()
    assert TRAIN_IDS_21[0] == PASCAL_VOC_21.background_index == 20
    assert PASCAL_VOC_21.class_names == (*PASCAL_VOC_20.class_names, "background")


def test_indices_of_the_listed_images_are_converted_not_colors(voc_root: Path) -> None:
    report = prepare_pascal_voc(voc_root, workers=2)
    assert (report.written, report.skipped, report.problems) == (6, 0, ())
    prepared = sorted((voc_root / PREPARED).iterdir())
    assert [path.stem for path in prepared] == ["2007_000000", "2007_000002", "2007_000003"]
    for path in prepared:
        published = _read(voc_root / PUBLISHED_LABEL_FOLDERS[0] / path.name)
        assert np.array_equal(_read(path), _expected(published))
        with_background = _read(voc_root / PREPARED_21 / path.name)
        assert np.array_equal(with_background, _expected(published, background=20))


def test_a_damaged_label_is_one_problem(voc_root: Path) -> None:
    (voc_root / PUBLISHED_LABEL_FOLDERS[0] / "2007_000002.png").write_bytes(b"no label")
    report = prepare_pascal_voc(voc_root, workers=2)
    assert (report.written, len(report.problems)) == (4, 1)


def test_grayscale_labels_give_the_same_files(voc_root: Path) -> None:
    prepare_pascal_voc(voc_root, workers=1)
    from_palette = {path.name: path.read_bytes() for path in (voc_root / PREPARED).iterdir()}
    for path in (voc_root / PREPARED).iterdir():
        path.unlink()
    _replace_by_grayscale(voc_root)
    prepare_pascal_voc(voc_root, workers=1)
    assert {p.name: p.read_bytes() for p in (voc_root / PREPARED).iterdir()} == from_palette


def test_records_follow_the_list_even_if_the_folder_holds_more(
    voc_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_pascal_voc(voc_root, workers=1)
    (voc_root / PREPARED / "2007_000001.png").write_bytes(b"not listed")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(voc_root))
    register_sem_seg_benchmark(PASCAL_VOC_20)
    records = DatasetCatalog.get("voc_2012_test_sem_seg")
    names = [Path(record["file_name"]).stem for record in records]
    assert names == ["2007_000002", "2007_000000", "2007_000003"]
    assert [Path(record["sem_seg_file_name"]).stem for record in records] == names
    assert MetadataCatalog.get("voc_2012_test_sem_seg").stuff_classes == list(
        get_vocabulary("pascal_voc_20")
    )


@pytest.mark.parametrize(
    "text", ["", "\n\n", "a b\n", "../secret\n", "2007_000000\n2007_000000\n", "\0\n"]
)
def test_a_malformed_list_is_refused(voc_root: Path, text: str) -> None:
    (voc_root / IMAGE_LIST).write_text(text)
    with pytest.raises(ValueError, match=r"val\.txt: expected one image name"):
        prepare_pascal_voc(voc_root, workers=1)
    assert not (voc_root / PREPARED).exists()


@pytest.mark.parametrize("missing", [IMAGE_LIST, PASCAL_VOC_20.image_folder])
def test_a_missing_part_of_the_layout_is_named(voc_root: Path, missing: str) -> None:
    (voc_root / missing).rename(voc_root / "elsewhere")
    with pytest.raises(FileNotFoundError, match=f"missing: {missing}"):
        prepare_pascal_voc(voc_root, workers=1)


def test_the_real_layout(copy_real: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root = copy_real("VOCdevkit/VOC2012")
    report = prepare_pascal_voc(root, workers=1)
    assert report.problems == ()
    assert report.written > 0
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    register_sem_seg_benchmark(PASCAL_VOC_20)
    for record in DatasetCatalog.get(PASCAL_VOC_20.name):
        prepared = Path(record["sem_seg_file_name"])
        with_background = _read(root / PREPARED_21 / prepared.name)
        for folder in PUBLISHED_LABEL_FOLDERS:
            published = _read(root / folder / prepared.name)
            assert np.array_equal(_read(prepared), _expected(published))
            assert np.array_equal(with_background, _expected(published, background=20))
