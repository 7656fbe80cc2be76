"""SA-1B's JSON beside each image: ``{"annotations": [{"segmentation": RLE}, ...]}``."""

import json
from typing import Any, NoReturn

from pixelclip.data.corrupt_record import BrokenRecordError

# SA-1B has a few hundred masks an image at most. The limit bounds a sample's memory: at the
# published mask resolution of 256x256 this many masks take 256 MiB.
MAX_MASKS = 4096


def parse_mask_rles(data: bytes) -> list[dict[str, Any]]:
    """The run-length codes of an image's masks; other keys of the JSON are not looked at.

    Args:
        data: content of the JSON file.

    Returns:
        At least one and at most 4096 dictionaries, which ``rle.sample_masks`` checks and reads.

    Raises:
        BrokenRecordError: kind ``"annotations"``: malformed JSON, no list of annotations, a
            segmentation missing or not run-length coded, too many; kind ``"no masks"``: none.
    """
    annotations = _annotation_list(data)
    if not annotations:
        raise BrokenRecordError(
            "its JSON has no masks: the list of annotations is empty", "no masks"
        )
    if len(annotations) > MAX_MASKS:
        _refuse(f"has {len(annotations)} masks; at most {MAX_MASKS} expected")
    return [_rle(index, annotation) for index, annotation in enumerate(annotations)]


def _refuse(problem: str) -> NoReturn:
    raise BrokenRecordError(f"its JSON {problem}", "annotations")


def _annotation_list(data: bytes) -> list[Any]:
    try:
        content = json.loads(data)
    # Deep nesting exhausts the parser's stack; everything else is a ValueError.
    except (ValueError, RecursionError) as error:
        raise BrokenRecordError(f"its JSON is malformed: {error}", "annotations") from error
    if not isinstance(content, dict):
        _refuse(f"is a {type(content).__name__}; expected an object with a list 'annotations'")
    annotations = content.get("annotations")
    if not isinstance(annotations, list):
        found = "no" if annotations is None else f"a {type(annotations).__name__} as"
        _refuse(f"has {found} 'annotations'; expected a list")
    return annotations


def _rle(index: int, annotation: Any) -> dict[str, Any]:
    segmentation = annotation.get("segmentation") if isinstance(annotation, dict) else None
    if isinstance(segmentation, list):
        _refuse(
            f"has a polygon as mask {index}; convert it to a run-length code, for example with "
            "pycocotools.mask.frPyObjects and merge"
        )
    if not isinstance(segmentation, dict):
        _refuse(f"has no run-length coded 'segmentation' in annotation {index}")
    return segmentation
