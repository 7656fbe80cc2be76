"""Photographs with masks in SA-1B's layout and of its size, out of random numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH = 1500, 2250
MASKS = 60
_CORNERS = 200


def write_photographs(
    folder: Path, count: int, size: tuple[int, int] = (HEIGHT, WIDTH), masks: int = MASKS
) -> None:
    """Write ``count`` JPEG files of (height, width) pixels, each with its JSON of masks."""
    for index in range(count):
        generator = np.random.default_rng(index)
        image = make_photograph(generator, size)
        Image.fromarray(image).save(folder / f"sa_{index}.jpg", quality=85)
        annotations = [{"segmentation": _blob(generator, size)} for _ in range(masks)]
        (folder / f"sa_{index}.json").write_text(json.dumps({"annotations": annotations}))


def make_photograph(generator: np.random.Generator, size: tuple[int, int]) -> NDArray[np.uint8]:
    """(height, width, 3) random colours with details of all sizes, as photographs have."""
    total = np.zeros((*size, 3), np.float32)
    for cells, strength in ((4, 60), (20, 35), (100, 20), (400, 12)):
        coarse = generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
        total += (np.asarray(smooth, np.float32) / 127.5 - 1) * strength
    return np.clip(total + 128, 0, 255).astype(np.uint8)


def _blob(generator: np.random.Generator, size: tuple[int, int]) -> dict[str, Any]:
    """COCO's run-length code of a ragged shape, of a few pixels up to a third of the image."""
    height, width = size
    angles = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    radius = min(size) / 3 * 10 ** -generator.uniform(0, 1.7)
    radii = radius * generator.uniform(0.7, 1.3, _CORNERS)
    x = (generator.uniform(0, width) + radii * np.cos(angles)).clip(0, width)
    y = (generator.uniform(0, height) + radii * np.sin(angles)).clip(0, height)
    polygon = np.stack([x, y], axis=1).reshape(-1)  # (corners, 2) -> (2 * corners,)
    (code,) = pycocotools.mask.frPyObjects([polygon.tolist()], height, width)
    return {"size": [height, width], "counts": code["counts"].decode()}
