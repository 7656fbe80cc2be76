"""PASCAL Context: category ids in both directions, drawing, the prepared list, damaged files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

from pixelclip.data.datasets.pascal_context import (
    ANNOTATIONS,
    CATEGORY_IDS,
    IMAGE_FOLDER,
    IMAGE_LIST,
    PASCAL_CONTEXT_59,
    PASCAL_CONTEXT_60,
    TRAIN_IDS,
    draw_label,
    prepare_pascal_context,
)
from pixelclip.data.datasets.sem_seg_benchmark import register_sem_seg_benchmark

BENCHMARKS = pytest.mark.parametrize(
    ("benchmark", "everything_else"), [(PASCAL_CONTEXT_59, 255), (PASCAL_CONTEXT_60, 59)]
)


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.array(image)


def _change(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the content of the JSON in place."""
    content = json.loads((root / ANNOTATIONS).read_text())
    change(content)
    (root / ANNOTATIONS).write_text(json.dumps(content))


def test_category_ids_are_those_of_the_facts_in_both_directions(shared_folder: Path) -> None:
    facts = json.loads((shared_folder / "facts/label_maps.json").read_text())["pascal_context_59"]
    expected = facts["category_ids_in_order_of_train_id"]
    assert list(CATEGORY_IDS) == expected
    assert [TRAIN_IDS[category_id] for category_id in expected] == list(range(59))
    assert len(TRAIN_IDS) == 59
    assert facts["everything_else"] == PASCAL_CONTEXT_59.ignore_label


def test_background_is_the_last_class_of_context_60() -> None:
    assert PASCAL_CONTEXT_60.background_index == 59
    assert PASCAL_CONTEXT_60.class_names == (*PASCAL_CONTEXT_59.class_names, "background")
    assert len(PASCAL_CONTEXT_59.class_names) == 59


@BENCHMARKS
def test_every_category_and_no_other_has_a_class(benchmark: Any, everything_else: int) -> None:
    for category_id in range(500):
        mask = np.asfortranarray([[1, 0], [0, 1]], dtype=np.uint8)
        regions = [(category_id, pycocotools.mask.encode(mask))]
        label = draw_label(regions, (2, 2), everything_else)
        train_id = (
            CATEGORY_IDS.index(category_id) if category_id in CATEGORY_IDS else everything_else
        )
        assert label.tolist() == [[train_id, everything_else], [everything_else, train_id]]


@BENCHMARKS
def test_regions_are_drawn_in_their_order(
    context_root: Path, benchmark: Any, everything_else: int
) -> None:
    report = prepare_pascal_context(context_root, workers=2)
    assert (report.written, report.skipped, report.problems) == (6, 0, ())
    labels = context_root / benchmark.label_folder
    expected = np.full((3, 24, 16), everything_else)
    expected[0, :6], expected[0, 6:] = 0, 58
    expected[2, :4] = CATEGORY_IDS.index(23)
    assert len(list(labels.iterdir())) == 3
    for index in range(3):
        assert np.array_equal(_read(labels / f"2008_{index:06d}.png"), expected[index])


@BENCHMARKS
def test_the_images_of_the_validation_phase_are_loaded(
    context_root: Path, benchmark: Any, everything_else: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(context_root))
    register_sem_seg_benchmark(benchmark)
    with pytest.raises(FileNotFoundError, match=r"prepare pascal_context --root"):
        DatasetCatalog.get(benchmark.name)
    prepare_pascal_context(context_root, workers=1)
    names = [Path(record["file_name"]).stem for record in DatasetCatalog.get(benchmark.name)]
    assert names == ["2008_000000", "2008_000001", "2008_000002"]
    (context_root / IMAGE_LIST).unlink()
    with pytest.raises(FileNotFoundError, match=r"prepare pascal_context --root"):
        DatasetCatalog.get(benchmark.name)


def test_a_second_run_writes_nothing_and_a_new_json_is_followed(context_root: Path) -> None:
    prepare_pascal_context(context_root, workers=1)
    assert prepare_pascal_context(context_root, workers=1).skipped == 6
    _change(context_root, lambda content: content["annos_segmentation"].clear())
    assert prepare_pascal_context(context_root, workers=1).written == 6
    for path in (context_root / PASCAL_CONTEXT_60.label_folder).iterdir():
        assert (_read(path) == 59).all()


@pytest.mark.parametrize(
    "counts", [None, "", "0", 7, [1, 2], [[0, 0, 5, 5, 5, 0]], "P" * 1000], ids=repr
)
def test_a_bad_run_length_code_is_named_and_the_others_are_drawn(
    context_root: Path, counts: Any
) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annos_segmentation"][0]["segmentation"]["counts"] = counts

    _change(context_root, change)
    report = prepare_pascal_context(context_root, workers=1)
    assert report.written == 4
    assert len(report.problems) == 1
    assert "trainval_merged.json: 2008_000000.jpg: mask 0" in report.problems[0]


def test_a_missing_image_and_a_code_of_another_size_are_named(context_root: Path) -> None:
    (context_root / IMAGE_FOLDER / "2008_000001.jpg").unlink()
    Image.new("RGB", (24, 16)).save(context_root / IMAGE_FOLDER / "2008_000002.jpg")
    problems = prepare_pascal_context(context_root, workers=1).problems
    assert len(problems) == 2
    assert "2008_000001.jpg: the image is missing" in problems[0]
    assert "24x16" in problems[1]
    assert "16x24" in problems[1]


# Each lacks something, or holds a list where there should be a number.
OTHER_FORMS = [
    *("", "{", "[]", "7", "{}", "[" * 100_000),
    '{"images": [], "annos_segmentation": []}',
    '{"images": [{"phase": "val"}], "annos_segmentation": []}',
    '{"annos_segmentation": [], "images": [{"phase": "val", "file_name": "a", "image_id": []}]}',
    '{"images": [], "annos_segmentation": [{"image_id": [], "category_id": 1}]}',
    '{"images": [], "annos_segmentation": [{"image_id": 1, "category_id": [2]}]}',
]


@pytest.mark.parametrize("text", OTHER_FORMS, ids=lambda text: text[:30])
def test_a_json_of_another_form_is_refused(context_root: Path, text: str) -> None:
    (context_root / ANNOTATIONS).write_text(text)
    with pytest.raises(ValueError, match=r"trainval_merged\.json .* Download it again"):
        prepare_pascal_context(context_root, workers=1)
    assert not (context_root / PASCAL_CONTEXT_59.label_folder).exists()


def test_the_real_layout(copy_real: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root = copy_real("VOCdevkit/VOC2010")
    assert prepare_pascal_context(root, workers=1).problems == ()
    content = json.loads((root / ANNOTATIONS).read_text())
    for image in content["images"]:
        expected = np.full((image["height"], image["width"]), 59)
        for region in content["annos_segmentation"]:
            if region["image_id"] == image["image_id"]:
                mask = pycocotools.mask.decode(region["segmentation"]) == 1
                expected[mask] = CATEGORY_IDS.index(region["category_id"])
        name = Path(image["file_name"]).with_suffix(".png").name
        assert np.array_equal(_read(root / PASCAL_CONTEXT_60.label_folder / name), expected)
        expected[expected == 59] = 255
        assert np.array_equal(_read(root / PASCAL_CONTEXT_59.label_folder / name), expected)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    register_sem_seg_benchmark(PASCAL_CONTEXT_59)
    assert len(DatasetCatalog.get("context_59_test_sem_seg")) == len(content["images"])
