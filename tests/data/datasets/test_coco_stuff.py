"""COCO-Stuff 171: label values in both directions, preparation, the real layout."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

from pixelclip.data.datasets.coco_stuff import (
    CATEGORY_IDS,
    COCO_STUFF_171,
    PUBLISHED_LABEL_FOLDER,
    TRAIN_IDS,
    prepare_coco_stuff,
)
from pixelclip.data.datasets.sem_seg_benchmark import register_sem_seg_benchmark


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.array(image)


def test_label_values_are_those_of_the_facts_in_both_directions(shared_folder: Path) -> None:
    facts = json.loads((shared_folder / "facts/label_maps.json").read_text())["coco_stuff"]
    expected = {c["id"] - 1: c["train_id"] for c in facts["categories"]} | {facts["void"]: 255}
    assert expected == TRAIN_IDS
    values = {train_id: value for value, train_id in TRAIN_IDS.items()}
    assert values == {train_id: value for value, train_id in expected.items()}
    names = {c["train_id"]: c["name"] for c in facts["categories"]}
    assert [names[index] for index in range(171)] == list(COCO_STUFF_171.class_names)


def test_each_class_has_one_value() -> None:
    assert sorted(TRAIN_IDS.values()) == [*range(171), 255]
    assert list(CATEGORY_IDS) == sorted(CATEGORY_IDS)
    assert [TRAIN_IDS[id_ - 1] for id_ in (1, 90, 92, 182)] == [0, 79, 80, 170]


def test_every_pixel_of_every_category_is_converted(coco_stuff_root: Path) -> None:
    report = prepare_coco_stuff(coco_stuff_root, workers=2)
    assert (report.written, report.skipped, report.problems) == (4, 0, ())
    seen = set()
    for published in (coco_stuff_root / PUBLISHED_LABEL_FOLDER).iterdir():
        before = _read(published)
        after = _read(coco_stuff_root / COCO_STUFF_171.label_folder / published.name)
        for value, train_id in zip(before.ravel().tolist(), after.ravel().tolist(), strict=True):
            assert train_id == (255 if value == 255 else CATEGORY_IDS.index(value + 1))
            seen.add(train_id)
    assert seen == {*range(171), 255}


@pytest.mark.parametrize("value", [11, 25, 90, 182, 254])
def test_values_of_no_category_are_refused(coco_stuff_root: Path, value: int) -> None:
    path = coco_stuff_root / PUBLISHED_LABEL_FOLDER / "000000000002.png"
    label = _read(path)
    label[3, 4] = value
    Image.fromarray(label).save(path)
    (problem,) = prepare_coco_stuff(coco_stuff_root, workers=1).problems
    assert path.name in problem
    assert f"[{value}]" in problem


def test_the_real_layout(copy_real: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root = copy_real("coco-stuff")
    report = prepare_coco_stuff(root, workers=1)
    assert report.problems == ()
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    register_sem_seg_benchmark(COCO_STUFF_171)
    records = DatasetCatalog.get("coco_2017_test_stuff_all_sem_seg")
    assert len(records) == report.written > 0
    for record in records:
        assert set(np.unique(_read(Path(record["sem_seg_file_name"])))) <= {*range(171), 255}
