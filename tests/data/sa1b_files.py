"""Small files in the form that SA-1B is published in."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
from numpy.typing import NDArray
from PIL import Image


def random_image(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """(height, width, 3) uint8: smooth colors with noise, so that a JPEG keeps something of it."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR)).astype(int)
    noise = generator.integers(-9, 10, smooth.shape)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def random_masks(seed: int, number: int, height: int, width: int) -> NDArray[np.uint8]:
    """(number, height, width) uint8 in {0, 1}: ragged blobs."""
    generator = np.random.default_rng(seed)
    coarse = generator.random((number, 5, 5)).astype(np.float32)
    images = [Image.fromarray(field).resize((width, height)) for field in coarse]
    return np.stack([np.asarray(image) > 0.55 for image in images]).astype(np.uint8)


def encode(mask: NDArray[np.uint8]) -> dict[str, Any]:
    """COCO's compressed run-length code of a (height, width) mask, as in JSON."""
    code = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": code["counts"].decode()}


def annotation_bytes(masks: NDArray[np.uint8]) -> bytes:
    """The JSON of (N, height, width) masks."""
    return json.dumps({"annotations": [{"segmentation": encode(mask)} for mask in masks]}).encode()


def image_bytes(pixels: NDArray[np.uint8], image_format: str = "JPEG", **options: Any) -> bytes:
    """An image file of (height, width, 3) pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, **options)
    return buffer.getvalue()


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files, given as relative path -> content, below a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def write_tar(path: Path, files: Mapping[str, bytes], **options: Any) -> None:
    """Write an uncompressed tar of regular files in the given order."""
    with tarfile.open(path, "w", **options) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
