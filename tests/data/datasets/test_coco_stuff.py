"""COCO-Stuff 171: label values in both directions, preparation; its regions as masks."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycocotools.mask
import pytest
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pixelclip.data.datasets.coco_stuff import (
    CATEGORY_IDS,
    COCO_STUFF_171,
    MASK_FOLDERS,
    PUBLISHED_LABEL_FOLDER,
    TRAIN_IDS,
    encode_regions,
    list_mask_files,
    load_coco_stuff_masks,
    prepare_coco_stuff,
    prepare_coco_stuff_masks,
    register_coco_stuff_masks,
)
from pixelclip.data.datasets.sem_seg_benchmark import register_sem_seg_benchmark
from pixelclip.data.mapper import MaskDatasetMapper

MASKS = "coco_2017_val_stuff_masks"


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


def _decode(path: Path) -> np.ndarray:
    """(N, H, W) masks of a JSON file."""
    annotations = json.loads(path.read_text())["annotations"]
    assert all(set(annotation) == {"segmentation"} for annotation in annotations)
    return np.stack([pycocotools.mask.decode(a["segmentation"]) for a in annotations])


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_masks_are_the_regions_of_each_value(height: int, width: int, data: st.DataObject) -> None:
    pixels = st.lists(
        st.sampled_from([0, 1, 5, 181, 255]), min_size=height * width, max_size=height * width
    )
    label = np.array(data.draw(pixels), np.uint8).reshape(height, width)
    annotations = encode_regions(label)
    values = [value for value in np.unique(label) if value != 255]
    masks = [pycocotools.mask.decode(a["segmentation"]) for a in annotations]
    assert len(masks) == len(values)
    for value, mask in zip(values, masks, strict=True):
        assert np.array_equal(mask, label == value)


def test_each_labeled_pixel_is_in_one_mask(coco_stuff_root: Path) -> None:
    report = prepare_coco_stuff_masks(coco_stuff_root, workers=2, split="val2017")
    assert (report.written, report.skipped, report.problems) == (4, 0, ())
    for path in (coco_stuff_root / MASK_FOLDERS[2] / "val2017").iterdir():
        with Image.open(coco_stuff_root / PUBLISHED_LABEL_FOLDER / f"{path.stem}.png") as image:
            labeled = np.array(image) != 255
        assert np.array_equal(_decode(path).sum(axis=0), labeled)
    again = prepare_coco_stuff_masks(coco_stuff_root, workers=2, split="val2017")
    assert (again.written, again.skipped) == (0, 4)


def test_masks_of_a_bad_label_are_left_out_and_the_others_are_used(
    coco_stuff_root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("L", (16, 24), 11).save(coco_stuff_root / PUBLISHED_LABEL_FOLDER / "000000000001.png")
    (problem,) = prepare_coco_stuff_masks(coco_stuff_root, workers=1, split="val2017").problems
    assert "000000000001.png: holds the values [11]" in problem
    monkeypatch.setenv("DETECTRON2_DATASETS", str(coco_stuff_root))
    with caplog.at_level(logging.WARNING, logger="pixelclip"):
        records = load_coco_stuff_masks(MASKS)
    assert [record["image_id"][-1] for record in records] == ["0", "2", "3"]
    assert "1 images without masks and 0 masks without image" in caplog.text
    images, masks = list_mask_files(MASKS)
    assert (len(images), len(masks)) == (4, 3)


def test_missing_masks_are_named_with_the_command(
    coco_stuff_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(coco_stuff_root))
    register_coco_stuff_masks()
    with pytest.raises(FileNotFoundError, match="missing: coco-stuff/images/train2017"):
        DatasetCatalog.get("coco_2017_train_stuff_masks")
    command = f"prepare coco_stuff_masks --root {coco_stuff_root} --split val2017"
    with pytest.raises(FileNotFoundError, match=command):
        DatasetCatalog.get(MASKS)


def _map(root: Path, cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    cfg.INPUT.MIN_SIZE_TRAIN = (64,)
    mapper = MaskDatasetMapper(cfg)
    records = load_coco_stuff_masks(MASKS)
    assert records
    for record in records:
        sample = mapper.map_record(record)
        masks = sample["masks"].numpy()
        assert len(masks) > 1
        # The regions are a partition, so no pixel is in two masks.
        assert masks.sum(axis=0).max() == 1


def test_the_mapper_reads_the_masks(
    coco_stuff_root: Path, tiny_config: CfgNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_coco_stuff_masks(coco_stuff_root, workers=1, split="val2017")
    _map(coco_stuff_root, tiny_config, monkeypatch)


def test_masks_of_the_real_layout(
    copy_real: Callable[[str], Path], tiny_config: CfgNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = copy_real("coco-stuff")
    assert prepare_coco_stuff_masks(root, workers=1, split="val2017").problems == ()
    _map(root, tiny_config, monkeypatch)
