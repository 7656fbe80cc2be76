"""Miniature copies of the published layouts, with labels that hold every value of a benchmark."""

import json
from pathlib import Path

import numpy as np
import pycocotools.mask
from PIL import Image

ADE = Path("ADEChallengeData2016")
VOC = Path("VOCdevkit/VOC2012")
COCO = Path("coco-stuff")
CONTEXT = Path("VOCdevkit/VOC2010")
CITYSCAPES = Path("cityscapes")
CAMVID = Path("camvid")


def _write_image(path: Path, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 60, 30)).save(path)


def _write_label(path: Path, label: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(label)
    if palette:
        colors = np.random.default_rng(1).integers(0, 256, 768).tolist()
        image.putpalette(colors)
    image.save(path)


def _random_label(seed: int, values: list[int]) -> np.ndarray:
    """(24, 16) uint8 that holds each of ``values`` at least once."""
    generator = np.random.default_rng(seed)
    label = generator.choice(values, 24 * 16)
    label[: len(values)] = values
    return generator.permutation(label).astype(np.uint8).reshape(24, 16)


def write_ade(root: Path) -> None:
    """Write five ADE20K validation images of 16x24 pixels and their published labels."""
    for index in range(1, 6):
        name = f"ADE_val_{index:08d}"
        _write_image(root / ADE / f"images/validation/{name}.jpg", (16, 24))
        label = _random_label(index, list(range(151)))
        _write_label(root / ADE / f"annotations/validation/{name}.png", label)


def write_voc(root: Path) -> None:
    """Write four VOC images, three of them in ``val.txt``, labels as palette images."""
    for index in range(4):
        name = f"2007_{index:06d}"
        _write_image(root / VOC / f"JPEGImages/{name}.jpg", (16, 24))
        label = _random_label(index, [*range(21), 255])
        _write_label(root / VOC / f"SegmentationClass/{name}.png", label, palette=True)
    image_list = root / VOC / "ImageSets/Segmentation/val.txt"
    image_list.parent.mkdir(parents=True)
    image_list.write_text("2007_000002\n2007_000000\n2007_000003\n")


def write_coco_stuff(root: Path) -> None:
    """Write four COCO validation images and their labels, which hold every category."""
    allowed = [value for value in range(182) if value + 1 not in DROPPED_COCO_IDS]
    for index in range(4):
        name = f"{index:012d}"
        _write_image(root / COCO / f"images/val2017/{name}.jpg", (16, 24))
        label = _random_label(index, [*allowed, 255])
        _write_label(root / COCO / f"annotations/val2017/{name}.png", label)


DROPPED_COCO_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}


def write_context(root: Path) -> None:
    """Write three Context validation images and one of the training phase.

    The regions of image 0 overlap, image 1 has none, image 2 has one of a category of no class.
    """
    images = [
        {"image_id": 7 + i, "file_name": f"2008_{i:06d}.jpg", "phase": phase}
        for i, phase in enumerate(["val", "val", "val", "train"])
    ]
    for image in images:
        _write_image(root / CONTEXT / "JPEGImages" / str(image["file_name"]), (16, 24))
    boxes = [(7, 2, 0, 12), (7, 458, 6, 24), (9, 23, 0, 8), (9, 456, 4, 20), (10, 2, 0, 24)]
    regions = [
        {"image_id": image_id, "category_id": category_id, "segmentation": _rows(top, bottom)}
        for image_id, category_id, top, bottom in boxes
    ]
    content = {"images": images, "annos_segmentation": regions, "categories": []}
    (root / CONTEXT / "trainval_merged.json").write_text(json.dumps(content))


def _rows(top: int, bottom: int) -> dict[str, object]:
    """Run-length code of the rows top..bottom-1 of 24x16 pixels."""
    mask = np.zeros((24, 16), np.uint8, order="F")
    mask[top:bottom] = 1
    code = pycocotools.mask.encode(mask)
    return {"size": code["size"], "counts": code["counts"].decode()}


def write_cityscapes(root: Path) -> None:
    """Write three Cityscapes images of two cities and their polygons, without train ids."""
    outline = {"label": "license plate", "polygon": [[0, 0], [15, 0], [15, 3], [0, 3]]}
    for name, label in [("a/a_1", "road"), ("a/a_2", "bicycle"), ("b/b_1", "parking")]:
        image = root / CITYSCAPES / f"leftImg8bit/val/{name}_leftImg8bit.png"
        _write_image(image, (16, 24))
        polygon = {"label": label, "polygon": [[0, 4], [15, 4], [15, 11], [0, 11]]}
        content = {"imgWidth": 16, "imgHeight": 24, "objects": [outline, polygon]}
        target = root / CITYSCAPES / f"gtFine/val/{name}_gtFine_polygons.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(content))


def write_camvid(root: Path) -> None:
    """Write two CamVid validation images and their labels, 11 of which is void."""
    for index in range(2):
        _write_image(root / CAMVID / f"images/val/{index}.png", (16, 24))
        label = _random_label(index, list(range(12)))
        _write_label(root / CAMVID / f"annotations/val/{index}.png", label)
