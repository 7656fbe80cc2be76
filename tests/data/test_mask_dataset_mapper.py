import json
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, get_cfg
from detectron2.data import build_detection_train_loader
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform
from PIL import Image

from pixelclip.config import add_pixelclip_config
from pixelclip.data.broken_record import BrokenRecordError
from pixelclip.data.mask_dataset_mapper import MaskDatasetMapper
from pixelclip.data.sa1b import load_sa1b
from pixelclip.data.strong_augmentation import StrongAugmentation
from tests.data.sa1b_files import (
    annotation_bytes,
    encode,
    image_bytes,
    random_masks,
    random_photograph,
    write_files,
)

HEIGHT, WIDTH = 90, 140
PIXELS = random_photograph(0, HEIGHT, WIDTH)
MASKS = random_masks(0, 12, HEIGHT, WIDTH)


@pytest.fixture
def cfg() -> CfgNode:
    cfg = get_cfg()
    add_pixelclip_config(cfg)
    cfg.INPUT.MIN_SIZE_TRAIN = (64, 100)
    cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = "range"
    cfg.INPUT.MAX_SIZE_TRAIN = 160
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.CROP.TYPE = "absolute"
    cfg.INPUT.CROP.SIZE = [60, 70]
    cfg.MODEL.PIXELCLIP.MASK_RESOLUTION = (32, 40)
    return cfg


def make_record(folder: Path, files: dict[str, bytes]) -> dict[str, Any]:
    write_files(folder, files)
    (record,) = load_sa1b(folder)
    return record


@pytest.fixture
def record(tmp_path: Path) -> dict[str, Any]:
    return make_record(
        tmp_path, {"x.png": image_bytes(PIXELS, "PNG"), "x.json": annotation_bytes(MASKS)}
    )


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (Detectron2 draws from the global generator)
    torch.manual_seed(seed)


def map_the_long_way(cfg: CfgNode, seed: int, masks: np.ndarray) -> dict[str, Any]:
    """Detectron2's augmentations of the image and of each decoded mask, one after the other."""
    seed_everything(seed)
    augmentations: list[Any] = [
        T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN, "range"),
        T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE),
        ColorAugSSDTransform(img_format=cfg.INPUT.FORMAT),
        T.RandomFlip(),
    ]
    is_bgr = cfg.INPUT.FORMAT == "BGR"
    weak = T.AugInput(PIXELS[:, :, ::-1] if is_bgr else PIXELS)
    transforms = T.AugmentationList(augmentations)(weak)
    rgb = weak.image[:, :, ::-1] if is_bgr else weak.image
    strong, (top, left, bottom, right) = StrongAugmentation()(np.ascontiguousarray(rgb))
    moved = np.stack([transforms.apply_segmentation(mask) for mask in masks])
    moved[:, top:bottom, left:right] = 0
    resized = F.interpolate(
        torch.from_numpy(moved)[:, None].float(),
        cfg.MODEL.PIXELCLIP.MASK_RESOLUTION,
        mode="nearest",
    )[:, 0].bool()
    strong = strong[:, :, ::-1] if is_bgr else strong
    return {"image": weak.image, "image_strong": strong, "masks": resized[resized.any(2).any(1)]}


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
@pytest.mark.parametrize("seed", range(25))
def test_equals_decoding_and_transforming_each_mask(
    cfg: CfgNode, record: dict[str, Any], image_format: str, seed: int
) -> None:
    cfg.INPUT.FORMAT = image_format
    expected = map_the_long_way(cfg, seed, MASKS)
    seed_everything(seed)
    sample = MaskDatasetMapper(cfg, True)(record)
    assert sample is not None
    assert torch.equal(sample["masks"], expected["masks"])
    for key in ("image", "image_strong"):
        np.testing.assert_array_equal(sample[key].permute(1, 2, 0), expected[key])


@pytest.mark.parametrize("seed", range(30))
def test_equality_holds_at_any_size(cfg: CfgNode, tmp_path: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    height, width = generator.integers(5, 200, 2).tolist()
    if max(height, width) > 10 * min(height, width):
        height = width
    cfg.INPUT.MIN_SIZE_TRAIN = (int(generator.integers(20, 150)),)
    cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = "choice"
    cfg.INPUT.MAX_SIZE_TRAIN = int(generator.integers(60, 300))
    cfg.INPUT.CROP.TYPE = "relative_range"
    cfg.INPUT.CROP.SIZE = [0.3, 0.3]
    cfg.MODEL.PIXELCLIP.MASK_RESOLUTION = tuple(generator.integers(1, 70, 2).tolist())
    masks = random_masks(seed, 5, height, width)
    pixels = random_photograph(seed, height, width)
    record = make_record(
        tmp_path, {"x.png": image_bytes(pixels, "PNG"), "x.json": annotation_bytes(masks)}
    )
    mapper = MaskDatasetMapper(cfg, True)
    seed_everything(seed)
    sample = mapper.map_record(record)
    seed_everything(seed)
    weak = T.AugInput(pixels)
    transforms = mapper.weak_augmentation(weak)
    _, (top, left, bottom, right) = mapper.strong_augmentation(weak.image)
    moved = np.stack([transforms.apply_segmentation(mask) for mask in masks])
    moved[:, top:bottom, left:right] = 0
    resolution = cfg.MODEL.PIXELCLIP.MASK_RESOLUTION
    resized = F.interpolate(torch.from_numpy(moved)[:, None].float(), resolution, mode="nearest")
    expected = resized[:, 0].bool()
    assert torch.equal(sample["masks"], expected[expected.any(2).any(1)])


def test_what_a_sample_holds(cfg: CfgNode, record: dict[str, Any]) -> None:
    sample = MaskDatasetMapper(cfg, True)(record)
    assert sample is not None
    for key in ("image", "image_strong"):
        assert sample[key].shape == (3, 60, 70) and sample[key].dtype == torch.uint8
        assert sample[key].is_contiguous()
    assert sample["masks"].shape[1:] == (32, 40) and sample["masks"].dtype == torch.bool
    assert (sample["height"], sample["width"]) == (HEIGHT, WIDTH)
    assert (sample["file_name"], sample["image_id"]) == (record["file_name"], "x")


def test_crop_colours_and_flip_can_be_switched_off(cfg: CfgNode, record: dict[str, Any]) -> None:
    cfg.INPUT.MIN_SIZE_TRAIN = (HEIGHT,)
    cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = "choice"
    cfg.INPUT.CROP.ENABLED = cfg.INPUT.COLOR_AUG_SSD = False
    cfg.INPUT.RANDOM_FLIP = "none"
    image = MaskDatasetMapper(cfg, True).map_record(record)["image"]
    np.testing.assert_array_equal(image.permute(1, 2, 0), PIXELS)


def test_vertical_flips(cfg: CfgNode, record: dict[str, Any]) -> None:
    cfg.INPUT.RANDOM_FLIP = "vertical"
    mapper = MaskDatasetMapper(cfg, True)
    kinds = {type(x).__name__ for seed in range(8) for x in transforms_of(mapper, seed)}
    assert "VFlipTransform" in kinds and "HFlipTransform" not in kinds
    assert mapper(record) is not None


def transforms_of(mapper: MaskDatasetMapper, seed: int) -> list[T.Transform]:
    seed_everything(seed)
    return mapper.weak_augmentation(T.AugInput(PIXELS)).transforms


def test_masks_outside_the_crop_make_no_broken_record(cfg: CfgNode, tmp_path: Path) -> None:
    masks = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    record = make_record(
        tmp_path, {"x.jpg": image_bytes(PIXELS), "x.json": annotation_bytes(masks)}
    )
    mapper = MaskDatasetMapper(cfg, True)
    sample = mapper(record)
    assert sample is not None and sample["masks"].shape == (0, 32, 40)
    assert not mapper.broken_counts


def test_masks_belong_to_the_upright_image(cfg: CfgNode, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    lying = image_bytes(PIXELS, "JPEG", exif=exif)
    upright = random_masks(0, 3, WIDTH, HEIGHT)
    mapper = MaskDatasetMapper(cfg, True)
    good = make_record(tmp_path / "a", {"x.jpg": lying, "x.json": annotation_bytes(upright)})
    sample = mapper.map_record(good)
    assert (sample["height"], sample["width"]) == (WIDTH, HEIGHT)
    bad = make_record(tmp_path / "b", {"x.jpg": lying, "x.json": annotation_bytes(MASKS)})
    with pytest.raises(BrokenRecordError, match="is for 90x140 pixels .* expected 140x90"):
        mapper.map_record(bad)


def with_segmentation(segmentation: Any) -> bytes:
    first = {"segmentation": encode(MASKS[0])}
    return json.dumps({"annotations": [first, {"segmentation": segmentation}]}).encode()


GOOD_IMAGE, GOOD_JSON = image_bytes(PIXELS), annotation_bytes(MASKS)
SIZE = [HEIGHT, WIDTH]
BROKEN: dict[str, tuple[str, bytes, bytes, str]] = {
    "cut image": ("image", GOOD_IMAGE[:-300], GOOD_JSON, "truncated"),
    "html as image": ("image", b"<html></html>", GOOD_JSON, "no image"),
    "empty image": ("image", b"", GOOD_JSON, "empty"),
    "strip": ("image", image_bytes(PIXELS[:1]), GOOD_JSON, "sides of a ratio of at most 64"),
    "malformed": ("annotations", GOOD_IMAGE, GOOD_JSON[:-9], "malformed"),
    "no object": ("annotations", GOOD_IMAGE, b"[]", "expected an object"),
    "no annotations": ("annotations", GOOD_IMAGE, b"{}", "no 'annotations'"),
    "no list": ("annotations", GOOD_IMAGE, b'{"annotations": 1}', "expected a list"),
    "no segmentation": ("annotations", GOOD_IMAGE, with_segmentation(None), "no run-length"),
    "polygon": ("annotations", GOOD_IMAGE, with_segmentation([[0, 0, 9, 9]]), "polygon"),
    "no masks": ("no masks", GOOD_IMAGE, b'{"annotations": []}', "no masks"),
    "other size": (
        "masks",
        GOOD_IMAGE,
        with_segmentation(encode(MASKS[0][:-1])),
        "mask 1 is for 89x140 pixels .* expected 90x140",
    ),
    "huge size": (
        "masks",
        GOOD_IMAGE,
        with_segmentation({"size": [10**9, 10**9], "counts": "0"}),
        "mask 1 is for 1000000000x1000000000",
    ),
    "short": ("masks", GOOD_IMAGE, with_segmentation({"size": SIZE, "counts": [5]}), "covers 5"),
    "no code": ("masks", GOOD_IMAGE, with_segmentation({"size": SIZE}), "not of the form"),
    "bad text": (
        "masks",
        GOOD_IMAGE,
        with_segmentation({"size": SIZE, "counts": "~"}),
        "character",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_each_kind_of_broken_record_is_counted_and_named(
    cfg: CfgNode, tmp_path: Path, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    kind, image, annotations, problem = BROKEN[case]
    record = make_record(tmp_path, {"x.jpg": image, "x.json": annotations})
    mapper = MaskDatasetMapper(cfg, True)
    assert mapper(record) is None
    assert mapper.broken_counts == {kind: 1}
    assert (
        f"Skipped 1 broken records ({kind}: 1); latest: x of {record['file_name']}" in caplog.text
    )
    with pytest.raises(BrokenRecordError, match=problem) as caught:
        mapper.map_record(record)
    assert caught.value.kind == kind
    assert mapper.broken_counts == {kind: 1}  # map_record leaves the counting to its caller


def test_a_file_that_is_gone_is_counted(
    cfg: CfgNode, record: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    Path(record["file_name"]).unlink()
    mapper = MaskDatasetMapper(cfg, True)
    assert mapper(record) is None
    assert mapper.broken_counts == {"file": 1}
    assert "cannot be read: No such file" in caplog.text


def test_the_log_is_not_flooded(
    cfg: CfgNode, record: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    Path(record["annotation_file_name"]).write_bytes(b"{}")
    mapper = MaskDatasetMapper(cfg, True)
    for _ in range(100):
        assert mapper(record) is None
    warnings = [entry for entry in caplog.records if entry.levelno == logging.WARNING]
    assert len(warnings) == 7  # 1, 2, 4, ..., 64
    assert "Skipped 64 broken records (annotations: 64)" in warnings[-1].getMessage()


@pytest.mark.parametrize(
    ("key", "problem"), [("FORMAT", "INPUT.FORMAT is 'odd'"), ("RANDOM_FLIP", "horiz or vert")]
)
def test_bad_config_values_are_refused(cfg: CfgNode, key: str, problem: str) -> None:
    cfg.INPUT[key] = "odd"
    with pytest.raises(ValueError, match=problem):
        MaskDatasetMapper(cfg, True)


def test_it_is_for_training_only(cfg: CfgNode) -> None:
    with pytest.raises(ValueError, match="makes training samples"):
        MaskDatasetMapper(cfg, False)


def test_the_test_masks_are_what_pycocotools_decodes() -> None:
    codes = [{**c, "counts": c["counts"].encode()} for c in map(encode, MASKS)]
    np.testing.assert_array_equal(coco_mask.decode(codes).transpose(2, 0, 1), MASKS)


def test_serves_detectron2s_own_loader(cfg: CfgNode, record: dict[str, Any]) -> None:
    loader = build_detection_train_loader(
        [record] * 4,
        mapper=MaskDatasetMapper(cfg, is_train=True),
        total_batch_size=2,
        aspect_ratio_grouping=False,
        num_workers=0,
    )
    batch = next(iter(loader))
    assert [sample["image"].shape for sample in batch] == [(3, 60, 70)] * 2
    assert all(sample["masks"].shape[1:] == (32, 40) for sample in batch)
