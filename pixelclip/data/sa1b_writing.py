"""Write masks as SA-1B publishes them: one JSON file for an image."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from pixelclip.utils.atomic_write import atomic_writer


class FoundMask(NamedTuple):
    """A mask that a segmenter found.

    Attributes:
        mask: (H, W) bool.
        predicted_iou: how well the segmenter thinks it fits, in 0..1.
        stability_score: how little it changes with the segmenter's threshold, in 0..1.
    """

    mask: NDArray[np.bool_]
    predicted_iou: float = 1.0
    stability_score: float = 1.0


def write_sa1b_annotation(
    path: Path,
    image_file_name: str,
    size: tuple[int, int],
    masks: Iterable[FoundMask],
    source: Mapping[str, int] | None = None,
) -> None:
    """Write the JSON file of an image; whole, or not at all.

    Args:
        path: of the JSON file.
        image_file_name: the image's name without folder.
        size: (height, width) of the image in pixels.
        masks: the image's masks, each of that size.
        source: what identifies the file in which they were found; training does not look at it.

    Raises:
        ValueError: a mask is not bool, is empty, or has another size than the image.
        OSError: the file cannot be written.
    """
    height, width = size
    content: dict[str, object] = {
        "image": {
            "image_id": Path(image_file_name).stem,
            "width": width,
            "height": height,
            "file_name": image_file_name,
        },
        "annotations": [_annotation(number, size, found) for number, found in enumerate(masks)],
    }
    if source is not None:
        content["source"] = dict(source)
    with atomic_writer(path) as file:
        file.write(json.dumps(content).encode())


def _annotation(number: int, size: tuple[int, int], found: FoundMask) -> dict[str, object]:
    _check(number, size, found.mask)
    rle = coco_mask.encode(np.asfortranarray(found.mask, dtype=np.uint8))
    return {
        "id": number,
        "segmentation": {"size": list(size), "counts": rle["counts"].decode()},
        "area": int(coco_mask.area(rle)),
        "bbox": coco_mask.toBbox(rle).tolist(),
        "predicted_iou": float(found.predicted_iou),
        "stability_score": float(found.stability_score),
    }


def _check(number: int, size: tuple[int, int], mask: NDArray[np.bool_]) -> None:
    if mask.dtype != np.bool_ or mask.shape != size:
        raise ValueError(
            f"mask {number} is {mask.dtype} of {mask.shape}; expected bool of the image's {size}"
        )
    if not mask.any():
        raise ValueError(f"mask {number} has no pixel; leave empty masks out")
