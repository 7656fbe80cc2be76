"""COCO-Stuff's regions as masks: what the JSON holds, and that the mapper reads it."""

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

from pixelclip.data.datasets.coco_stuff_masks import (
    count_coco_stuff_masks,
    encode_regions,
    load_coco_stuff_masks,
    mask_folder,
    prepare_coco_stuff_masks,
    register_coco_stuff_masks,
)
from pixelclip.data.mapper import MaskDatasetMapper

NAME = "coco_2017_val_stuff_masks"
LABELS = "coco-stuff/annotations/val2017"


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


def test_each_labelled_pixel_is_in_one_mask(coco_stuff_root: Path) -> None:
    report = prepare_coco_stuff_masks(coco_stuff_root, workers=2, split="val2017")
    assert (report.written, report.skipped, report.problems) == (4, 0, ())
    for path in (coco_stuff_root / mask_folder("val2017")).iterdir():
        with Image.open(coco_stuff_root / LABELS / f"{path.stem}.png") as image:
            labelled = np.array(image) != 255
        assert np.array_equal(_decode(path).sum(axis=0), labelled)
    again = prepare_coco_stuff_masks(coco_stuff_root, workers=2, split="val2017")
    assert (again.written, again.skipped) == (0, 4)


def test_a_bad_label_is_named_and_the_others_are_used(
    coco_stuff_root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("L", (16, 24), 11).save(coco_stuff_root / LABELS / "000000000001.png")
    (problem,) = prepare_coco_stuff_masks(coco_stuff_root, workers=1, split="val2017").problems
    assert "000000000001.png: holds the values [11]" in problem
    monkeypatch.setenv("DETECTRON2_DATASETS", str(coco_stuff_root))
    with caplog.at_level(logging.WARNING, logger="pixelclip"):
        records = load_coco_stuff_masks(NAME)
    assert [record["image_id"][-1] for record in records] == ["0", "2", "3"]
    assert "1 images without masks and 0 masks without image" in caplog.text
    assert count_coco_stuff_masks(NAME) == (4, 3)


def test_what_is_missing_is_named_with_the_command(
    coco_stuff_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(coco_stuff_root))
    register_coco_stuff_masks()
    with pytest.raises(FileNotFoundError, match="missing: coco-stuff/images/train2017"):
        DatasetCatalog.get("coco_2017_train_stuff_masks")
    command = f"prepare_coco_stuff_masks.py --root {coco_stuff_root} --split val2017"
    with pytest.raises(FileNotFoundError, match=command):
        DatasetCatalog.get(NAME)


def _map(root: Path, cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    cfg.INPUT.MIN_SIZE_TRAIN = (64,)
    mapper = MaskDatasetMapper(cfg)
    records = load_coco_stuff_masks(NAME)
    assert records
    for record in records:
        sample = mapper.map_record(record)
        masks = sample["masks"].numpy()
        assert len(masks) > 1
        # The regions are a partition, so no pixel is in two masks.
        assert masks.sum(axis=0).max() == 1


def test_the_mapper_reads_them(
    coco_stuff_root: Path, tiny_config: CfgNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_coco_stuff_masks(coco_stuff_root, workers=1, split="val2017")
    _map(coco_stuff_root, tiny_config, monkeypatch)


def test_the_real_layout(
    copy_real: Callable[[str], Path], tiny_config: CfgNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = copy_real("coco-stuff")
    assert prepare_coco_stuff_masks(root, workers=1, split="val2017").problems == ()
    _map(root, tiny_config, monkeypatch)
