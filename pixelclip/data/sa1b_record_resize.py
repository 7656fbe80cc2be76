"""Resize one image of SA-1B with its masks."""

import io
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from pixelclip.data.augmentation import pillow_nearest
from pixelclip.data.images import ImageFile
from pixelclip.data.rle import resample_codes, sample_masks
from pixelclip.data.sa1b_files import (
    CorruptRecordError,
    parse_annotation_file,
    read_annotation_bytes,
    read_image_bytes,
)

# In the image that the encoder sees, halving alone changes a value by 0.4 of 255, this JPEG by 0.15
# more, quality 90 by 0.3. Half the pixels of color (4:2:0) would cost 0.7: at half size a color
# pixel covers what it covered in the original, which has already lost the rest.
_JPEG = {"quality": 95, "subsampling": "4:4:4"}
_PNG_START = b"\x89PNG"
_Size = tuple[int, int]  # (height, width)


class ResizedRecord(NamedTuple):
    """The files of an image at its smaller size."""

    image: bytes
    annotation: bytes
    is_unchanged: bool
    dropped_masks: int


def resize_record(record: Mapping[str, Any], short_side: int) -> ResizedRecord:
    """Make an image's files at a smaller size; those of an image of that size or less stay.

    Like the reader, it turns an image upright as its EXIF orientation says.

    Raises:
        CorruptRecordError, ImageReadError, RLEError: training could not use the record either, or
            every mask would vanish.
    """
    annotation_bytes, image_bytes = read_annotation_bytes(record), read_image_bytes(record)
    content = parse_annotation_file(annotation_bytes)
    image = ImageFile(image_bytes)
    if min(image.size) <= short_side:
        # To see that they can be used.
        sample_masks([one["segmentation"] for one in content["annotations"]], [], [], image.size)
        image.decode()
        return ResizedRecord(image_bytes, annotation_bytes, True, 0)
    new_size = _smaller_size(image.size, short_side)
    dropped_masks = _resize_annotations(content, image.size, new_size)
    resized = image.decode()[0].resize(new_size[::-1], Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if image_bytes.startswith(_PNG_START):
        resized.save(buffer, "PNG")
    else:
        resized.save(buffer, "JPEG", **_JPEG)
    return ResizedRecord(buffer.getvalue(), json.dumps(content).encode(), False, dropped_masks)


def _smaller_size(size: _Size, short_side: int) -> _Size:
    height, width = (int(side * short_side / min(size) + 0.5) for side in size)
    return height, width


def _resize_annotations(content: dict[str, Any], size: _Size, new_size: _Size) -> int:
    """Resize what an image's JSON says, in place; return how many masks have vanished."""
    annotations = content["annotations"]
    # Pixels whose centers are nearest, as the mapper resizes masks together with their image.
    rows, columns = map(pillow_nearest, size, new_size)
    codes = resample_codes([one["segmentation"] for one in annotations], rows, columns, size)
    scale = (new_size[1] / size[1], new_size[0] / size[0])
    content["annotations"] = [
        _resize_annotation(annotation, code, scale)
        for annotation, code in zip(annotations, codes, strict=True)
        if coco_mask.area(code)
    ]
    if not content["annotations"]:
        raise CorruptRecordError(f"all its masks vanish at {new_size[0]}x{new_size[1]}", "no masks")
    if isinstance(content.get("image"), dict):
        content["image"].update(height=new_size[0], width=new_size[1])
    return len(annotations) - len(content["annotations"])


def _resize_annotation(
    annotation: Mapping[str, Any], code: Mapping[str, Any], scale: tuple[float, float]
) -> dict[str, Any]:
    resized = {
        **annotation,
        "segmentation": {"size": code["size"], "counts": code["counts"].decode()},
        "area": int(coco_mask.area(code)),
        "bbox": coco_mask.toBbox(code).tolist(),
    }
    # A rectangle (x, y, width, height), and points (x, y): pairs of numbers along x and y. They may
    # be missing or anything else in other sources, and training does not read them.
    for key in ("crop_box", "point_coords"):
        with suppress(ValueError, TypeError):
            values = np.asarray(annotation.get(key), float)
            resized[key] = (values.reshape(-1, 2) * scale).reshape(values.shape).tolist()
    return resized
