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
from pixelclip.data.augmentation import StrongAugmentation
from pixelclip.data.images import ImageFile
from pixelclip.data.mapper import MaskDatasetMapper
from pixelclip.data.sa1b import load_images, load_sa1b
from pixelclip.data.sa1b_files import CorruptRecordError
from tests.data.sa1b_files import (
    annotation_bytes,
    encode,
    image_bytes,
    random_image,
    random_masks,
    write_files,
)

HEIGHT, WIDTH = 90, 140
PIXELS = random_image(0, HEIGHT, WIDTH)
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


def map_the_long_way(cfg: CfgNode, seed: int, pixels: np.ndarray, masks: np.ndarray) -> Any:
    """Detectron2's augmentations of the whole image and of each decoded mask, one by one."""
    seed_everything(seed)
    node = cfg.INPUT
    augmentations: list[Any] = [
        T.ResizeShortestEdge(
            node.MIN_SIZE_TRAIN, node.MAX_SIZE_TRAIN, node.MIN_SIZE_TRAIN_SAMPLING
        ),
        T.RandomCrop(node.CROP.TYPE, node.CROP.SIZE),
        *([ColorAugSSDTransform(img_format="RGB")] if node.COLOR_AUG_SSD else []),
    ]
    if node.RANDOM_FLIP != "none":
        is_vertical = node.RANDOM_FLIP == "vertical"
        augmentations.append(T.RandomFlip(horizontal=not is_vertical, vertical=is_vertical))
    weak = T.AugInput(pixels)
    transforms = T.AugmentationList(augmentations)(weak)
    _, (top, left, bottom, right) = StrongAugmentation()(np.ascontiguousarray(weak.image))
    moved = np.stack([transforms.apply_segmentation(mask) for mask in masks])
    moved[:, top:bottom, left:right] = 0
    resized = F.interpolate(
        torch.from_numpy(moved)[:, None].float(),
        cfg.MODEL.PIXELCLIP.MASK_RESOLUTION,
        mode="nearest",
    )[:, 0].bool()
    return weak.image, resized[resized.any(2).any(1)]


def map_seeded(cfg: CfgNode, seed: int, record: dict[str, Any]) -> dict[str, Any]:
    seed_everything(seed)
    return MaskDatasetMapper(cfg, True).map_record(record)


def assert_equal_but_for_rounding(image: np.ndarray, expected: np.ndarray) -> None:
    """Pillow rounds to 8 bits after each of its two passes, whose order depends on the sizes."""
    difference = np.abs(image.astype(int) - expected)
    assert difference.max() <= 2
    assert difference.mean() < 0.4
    assert (difference > 1).mean() < 1e-3


@pytest.mark.parametrize("flip", ["horizontal", "vertical", "none"])
@pytest.mark.parametrize("seed", range(12))
def test_equals_transforming_all_pixels_and_each_mask(
    cfg: CfgNode, record: dict[str, Any], flip: str, seed: int
) -> None:
    cfg.INPUT.RANDOM_FLIP = flip
    _, masks = map_the_long_way(cfg, seed, PIXELS, MASKS)
    assert torch.equal(map_seeded(cfg, seed, record)["masks"], masks)
    cfg.INPUT.COLOR_AUG_SSD = False
    weak, _ = map_the_long_way(cfg, seed, PIXELS, MASKS)
    image = map_seeded(cfg, seed, record)["image"].permute(1, 2, 0).numpy()
    assert_equal_but_for_rounding(image, weak)


def test_without_resizing_the_images_equal_detectron2s(
    cfg: CfgNode, record: dict[str, Any]
) -> None:
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = (HEIGHT,), "choice"
    for seed in range(12):
        weak, _ = map_the_long_way(cfg, seed, PIXELS, MASKS)
        sample = map_seeded(cfg, seed, record)
        np.testing.assert_array_equal(sample["image"].permute(1, 2, 0), weak)


def test_bgr_is_rgb_in_the_other_order(cfg: CfgNode, record: dict[str, Any]) -> None:
    rgb = map_seeded(cfg, 3, record)
    cfg.INPUT.FORMAT = "BGR"
    bgr = map_seeded(cfg, 3, record)
    for key in ("image", "image_strong"):
        assert torch.equal(bgr[key], rgb[key].flip(0))


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
    cfg.INPUT.COLOR_AUG_SSD = False
    cfg.MODEL.PIXELCLIP.MASK_RESOLUTION = tuple(generator.integers(1, 70, 2).tolist())
    masks = random_masks(seed, 5, height, width)
    pixels = random_image(seed, height, width)
    record = make_record(
        tmp_path, {"x.png": image_bytes(pixels, "PNG"), "x.json": annotation_bytes(masks)}
    )
    weak, expected = map_the_long_way(cfg, seed, pixels, masks)
    sample = map_seeded(cfg, seed, record)
    assert torch.equal(sample["masks"], expected)
    assert_equal_but_for_rounding(sample["image"].permute(1, 2, 0).numpy(), weak)


def test_reduced_decoding_is_used_where_the_encoder_sees_less(
    cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = make_record(
        tmp_path, {"x.jpg": image_bytes(PIXELS), "x.json": annotation_bytes(MASKS)}
    )
    scales = []
    decode = ImageFile.decode

    def decode_and_note(image_file: ImageFile, min_scale: float) -> Any:
        image, scale = decode(image_file, min_scale)
        scales.append(scale)
        return image, scale

    monkeypatch.setattr(ImageFile, "decode", decode_and_note)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = (HEIGHT,), "choice"
    cfg.MODEL.CLIP.RESOLUTION = (30, 35)  # half of the crop
    full = map_seeded(cfg, 0, record)
    cfg.INPUT.REDUCED_JPEG_DECODING = True
    reduced = map_seeded(cfg, 0, record)
    cfg.MODEL.CLIP.RESOLUTION = (31, 35)
    map_seeded(cfg, 0, record)
    assert scales == [1.0, 0.5, 1.0]
    assert torch.equal(reduced["masks"], full["masks"])
    difference = reduced["image"].int() - full["image"].int()
    assert 0 < difference.abs().float().mean() < 12


def test_what_a_sample_holds(cfg: CfgNode, record: dict[str, Any]) -> None:
    sample = MaskDatasetMapper(cfg, True)(record)
    assert sample is not None
    for key in ("image", "image_strong"):
        assert sample[key].shape == (3, 60, 70) and sample[key].dtype == torch.uint8
        assert sample[key].is_contiguous()
    assert sample["masks"].shape[1:] == (32, 40) and sample["masks"].dtype == torch.bool
    assert (sample["height"], sample["width"]) == (HEIGHT, WIDTH)
    assert (sample["file_name"], sample["image_id"]) == (record["file_name"], "x")


def test_crop_colors_and_flip_can_be_switched_off(cfg: CfgNode, record: dict[str, Any]) -> None:
    cfg.INPUT.MIN_SIZE_TRAIN = (HEIGHT,)
    cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = "choice"
    cfg.INPUT.CROP.ENABLED = cfg.INPUT.COLOR_AUG_SSD = False
    cfg.INPUT.RANDOM_FLIP = "none"
    image = MaskDatasetMapper(cfg, True).map_record(record)["image"]
    np.testing.assert_array_equal(image.permute(1, 2, 0), PIXELS)


def test_masks_outside_the_crop_make_no_corrupt_record(cfg: CfgNode, tmp_path: Path) -> None:
    masks = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    record = make_record(
        tmp_path, {"x.jpg": image_bytes(PIXELS), "x.json": annotation_bytes(masks)}
    )
    mapper = MaskDatasetMapper(cfg, True)
    sample = mapper(record)
    assert sample is not None and sample["masks"].shape == (0, 32, 40)
    assert not mapper.corrupt_counts


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
    with pytest.raises(CorruptRecordError, match="is for 90x140 pixels .* expected 140x90"):
        mapper.map_record(bad)


def with_segmentation(segmentation: Any) -> bytes:
    first = {"segmentation": encode(MASKS[0])}
    return json.dumps({"annotations": [first, {"segmentation": segmentation}]}).encode()


GOOD_IMAGE, GOOD_JSON = image_bytes(PIXELS), annotation_bytes(MASKS)
SIZE = [HEIGHT, WIDTH]
CORRUPT: dict[str, tuple[str, bytes, bytes, str]] = {
    "cut image": ("image", GOOD_IMAGE[:-300], GOOD_JSON, "truncated"),
    "html as image": ("image", b"<html></html>", GOOD_JSON, "not an image"),
    "empty image": ("image", b"", GOOD_JSON, "empty"),
    "strip": ("image", image_bytes(PIXELS[:1]), GOOD_JSON, "sides of a ratio of at most 64"),
    "malformed": ("annotations", GOOD_IMAGE, GOOD_JSON[:-9], "malformed"),
    "no object": ("annotations", GOOD_IMAGE, b"[]", "expected a list"),
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
    "no code": ("masks", GOOD_IMAGE, with_segmentation({"size": SIZE}), r"expected \{\"size\""),
    "bad text": (
        "masks",
        GOOD_IMAGE,
        with_segmentation({"size": SIZE, "counts": "~"}),
        "character",
    ),
}


@pytest.mark.parametrize("case", CORRUPT)
def test_each_kind_of_corrupt_record_is_counted_and_named(
    cfg: CfgNode, tmp_path: Path, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    kind, image, annotations, problem = CORRUPT[case]
    record = make_record(tmp_path, {"x.jpg": image, "x.json": annotations})
    mapper = MaskDatasetMapper(cfg, True)
    assert mapper(record) is None
    assert mapper.corrupt_counts == {kind: 1}
    assert (
        f"Skipped 1 corrupt records ({kind}: 1); latest: x of {record['file_name']}" in caplog.text
    )
    with pytest.raises(CorruptRecordError, match=problem) as caught:
        mapper.map_record(record)
    assert caught.value.kind == kind
    assert mapper.corrupt_counts == {kind: 1}  # map_record leaves the counting to its caller


def test_a_file_that_is_gone_is_counted(
    cfg: CfgNode, record: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    Path(record["file_name"]).unlink()
    mapper = MaskDatasetMapper(cfg, True)
    assert mapper(record) is None
    assert mapper.corrupt_counts == {"file": 1}
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
    assert "Skipped 64 corrupt records (annotations: 64)" in warnings[-1].getMessage()


@pytest.mark.parametrize("key", ["FORMAT", "RANDOM_FLIP"])
def test_bad_config_values_are_refused(cfg: CfgNode, key: str) -> None:
    cfg.INPUT[key] = "odd"
    with pytest.raises(ValueError, match=f"INPUT.{key} is 'odd'"):
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


def test_without_masks_the_model_gets_a_seed_to_make_them(cfg: CfgNode, tmp_path: Path) -> None:
    write_files(tmp_path, {"x.jpg": GOOD_IMAGE})
    (plain,) = load_images(tmp_path)
    whole = np.ones((1, HEIGHT, WIDTH), np.uint8)
    annotated = make_record(tmp_path, {"x.json": annotation_bytes(whole)})
    for seed in range(5):
        cfg.MODEL.PIXELCLIP.MASK_SOURCE = "dataset"
        expected = map_seeded(cfg, seed, annotated)
        cfg.MODEL.PIXELCLIP.MASK_SOURCE = "dino"
        for record in (plain, annotated):
            sample = map_seeded(cfg, seed, record)
            assert "masks" not in sample
            assert torch.equal(sample["image_strong"], expected["image_strong"])
            assert sample["mask_seed"] == map_seeded(cfg, seed, plain)["mask_seed"]
    assert sample["mask_seed"] != map_seeded(cfg, 99, plain)["mask_seed"]
