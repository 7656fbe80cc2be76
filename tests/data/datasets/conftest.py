"""Miniature copies of the published layouts, with labels that hold every value of a benchmark."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(__file__).resolve().parents[4] / "shared"
ADE = Path("ADEChallengeData2016")
VOC = Path("VOCdevkit/VOC2012")


def _write_image(path: Path, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 60, 30)).save(path)


def _write_label(path: Path, label: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(label)
    if palette:
        colours = np.random.default_rng(1).integers(0, 256, 768).tolist()
        image.putpalette(colours)
    image.save(path)


def _random_label(seed: int, values: list[int]) -> np.ndarray:
    """(24, 16) uint8 that holds each of ``values`` at least once."""
    generator = np.random.default_rng(seed)
    label = generator.choice(values, 24 * 16)
    label[: len(values)] = values
    return generator.permutation(label).astype(np.uint8).reshape(24, 16)


@pytest.fixture
def ade_root(tmp_path: Path) -> Path:
    """A root with five ADE20K validation images of 16x24 pixels and their published labels."""
    for index in range(1, 6):
        name = f"ADE_val_{index:08d}"
        _write_image(tmp_path / ADE / f"images/validation/{name}.jpg", (16, 24))
        label = _random_label(index, list(range(151)))
        _write_label(tmp_path / ADE / f"annotations/validation/{name}.png", label)
    return tmp_path


@pytest.fixture
def voc_root(tmp_path: Path) -> Path:
    """A root with four VOC images, three of them in ``val.txt``, labels as palette images."""
    for index in range(4):
        name = f"2007_{index:06d}"
        _write_image(tmp_path / VOC / f"JPEGImages/{name}.jpg", (16, 24))
        label = _random_label(index, [*range(21), 255])
        _write_label(tmp_path / VOC / f"SegmentationClass/{name}.png", label, palette=True)
    image_list = tmp_path / VOC / "ImageSets/Segmentation/val.txt"
    image_list.parent.mkdir(parents=True)
    image_list.write_text("2007_000002\n2007_000000\n2007_000003\n")
    return tmp_path


@pytest.fixture
def copy_real(tmp_path: Path) -> Callable[[str], Path]:
    """Copies a folder of the real published layouts below a root; skips where there are none."""

    def copy(folder: str) -> Path:
        source = SHARED / "real" / "datasets" / folder
        if not source.is_dir():
            pytest.skip("the folder of real layouts is not beside this repository")
        for path in source.rglob("*"):
            if path.is_file():
                target = tmp_path / folder / path.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        return tmp_path

    return copy
