"""The files of one record of SA-1B: read an image and the JSON of its masks, write such a JSON.

The JSON is ``{"annotations": [{"segmentation": RLE}, ...]}``; its other keys are not read.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from pixelclip.utils.atomic_write import write_text

# Far above any image and any JSON of SA-1B: a damaged tar or a stray file must not fill the memory.
MAX_IMAGE_BYTES, MAX_JSON_BYTES = 2**30, 2**24
# SA-1B has a few hundred masks an image at most; this many take 256 MiB at 256x256 pixels.
MAX_MASKS = 4096

FileVersion = tuple[int, int]
Corruption = Literal["file", "image", "annotations", "masks", "no masks"]


class CorruptRecordError(ValueError):
    """A record of a training set that cannot be turned into a training sample.

    Attributes:
        kind: what is corrupt, for counting. ``"file"``: bytes that cannot be read; ``"image"``: no
            usable image; ``"annotations"``: no SA-1B JSON; ``"masks"``: a run-length code that is
            invalid or belongs to an image of another size; ``"no masks"``: nothing annotated.
    """

    # The keyword has a default because torch's loader rebuilds a worker's error from its text.
    def __init__(self, message: str, kind: Corruption = "file") -> None:
        super().__init__(message)
        self.kind: Corruption = kind


def file_version(status: os.stat_result) -> FileVersion:
    """What changes when a file is replaced: its size in bytes and its time in nanoseconds."""
    return status.st_size, status.st_mtime_ns


def read_image_bytes(record: Mapping[str, Any]) -> bytes:
    """The image file of a record of ``SA1BRecords``, as it is stored.

    Raises:
        CorruptRecordError: kind ``"file"``: it is missing, unreadable, truncated, or above 1 GiB,
            or its tar was replaced after it was indexed.
    """
    return _read(record, record["file_name"], record["image_span"], MAX_IMAGE_BYTES)


def read_annotation_bytes(record: Mapping[str, Any]) -> bytes:
    """The JSON file of a record, as :func:`read_image_bytes` reads the image; at most 16 MiB."""
    path, span = record["annotation_file_name"], record["annotation_span"]
    return _read(record, path, span, MAX_JSON_BYTES)


def _read(record: Mapping[str, Any], path: str, span: tuple[int, int] | None, limit: int) -> bytes:
    # Opened each time: an open file's position would be shared between forked workers.
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            indexed = record.get("tar_version")
            # The spans of one tar cut any bytes out of another, which may even look like a record.
            if indexed is not None and file_version(status) != indexed:
                raise CorruptRecordError(
                    f"{path} was replaced or changed after it was indexed (then {indexed[0]} bytes,"
                    f" now {status.st_size}); start again with --resume to index it again"
                )
            offset, size = span or (0, status.st_size)
            if size > limit:
                raise CorruptRecordError(f"{path}: {size} bytes to read; expected at most {limit}")
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise CorruptRecordError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) < size:
        missing = f"{size - len(data)} bytes before the end of the file at byte {offset}"
        raise CorruptRecordError(f"{path} ends {missing}")
    return data


def parse_mask_rles(data: bytes) -> list[dict[str, Any]]:
    """The run-length codes in an image's JSON: 1 to 4096 dicts, for ``rle.sample_masks`` to check.

    Raises:
        CorruptRecordError: as :func:`parse_annotation_file`.
    """
    return [annotation["segmentation"] for annotation in parse_annotation_file(data)["annotations"]]


def parse_annotation_file(data: bytes) -> dict[str, Any]:
    """The content of an image's JSON: "annotations" is a list of 1 to 4096 dicts with masks.

    Raises:
        CorruptRecordError: kind ``"annotations"``: malformed JSON, no list of annotations, a
            segmentation missing or not run-length coded, too many; kind ``"no masks"``: none.
    """
    try:
        content = json.loads(data)
    # Deep nesting exhausts the parser's stack; everything else is a ValueError.
    except (ValueError, RecursionError) as error:
        raise CorruptRecordError(f"its JSON is malformed: {error}", "annotations") from error
    annotations = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(annotations, list) or len(annotations) > MAX_MASKS:
        found = f"{len(annotations)} masks" if isinstance(annotations, list) else "no 'annotations'"
        problem = f"its JSON has {found}; expected a list of at most {MAX_MASKS} 'annotations'"
        raise CorruptRecordError(problem, "annotations")
    if not annotations:
        raise CorruptRecordError("its JSON has no masks: 'annotations' is empty", "no masks")
    for index, annotation in enumerate(annotations):
        rle = annotation.get("segmentation") if isinstance(annotation, dict) else None
        if not isinstance(rle, dict):
            raise CorruptRecordError(
                f"its JSON has no run-length coded 'segmentation' in annotation {index}; convert "
                "polygons, for example with pycocotools.mask.frPyObjects and merge",
                "annotations",
            )
    return content


class FoundMask(NamedTuple):
    """A mask that a mask generator found."""

    mask: NDArray[np.bool_]  # (H, W)
    predicted_iou: float = 1.0  # how well the generator thinks it fits, in 0..1
    stability_score: float = 1.0  # how little it changes with the generator's threshold, in 0..1


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
        image_file_name: without folder.
        size: (height, width) of the image and of each mask.
        masks: the image's masks.
        source: what identifies the file in which they were found; training does not read it.

    Raises:
        ValueError: a mask is not bool, is empty, or has another size than the image.
    """
    stem, (height, width) = Path(image_file_name).stem, size
    image = {"image_id": stem, "width": width, "height": height, "file_name": image_file_name}
    annotations = [_annotation(number, size, found) for number, found in enumerate(masks)]
    content = {"image": image, "annotations": annotations}
    if source is not None:
        content["source"] = dict(source)
    write_text(path, json.dumps(content))


def _annotation(number: int, size: tuple[int, int], found: FoundMask) -> dict[str, object]:
    mask = found.mask
    if mask.dtype != np.bool_ or mask.shape != size:
        kind = f"{mask.dtype} of {mask.shape}"
        raise ValueError(f"mask {number} is {kind}; expected bool of the image's {size}")
    if not mask.any():
        raise ValueError(f"mask {number} has no pixel; leave empty masks out")
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "id": number,
        "segmentation": {"size": list(size), "counts": rle["counts"].decode()},
        "area": int(coco_mask.area(rle)),
        "bbox": coco_mask.toBbox(rle).tolist(),
        "predicted_iou": float(found.predicted_iou),
        "stability_score": float(found.stability_score),
    }
