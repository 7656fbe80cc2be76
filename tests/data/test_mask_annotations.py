import json

import pytest

from pixelclip.data.corrupt_record import BrokenRecordError
from pixelclip.data.mask_annotations import MAX_MASKS, parse_mask_rles

RLE = {"size": [1, 1], "counts": "1"}


def test_segmentations_come_in_order() -> None:
    other = {"size": [1, 1], "counts": [0, 1]}
    content = {"annotations": [{"segmentation": RLE, "area": 1}, {"segmentation": other}]}
    assert parse_mask_rles(json.dumps(content).encode()) == [RLE, other]
    assert parse_mask_rles(b"\xef\xbb\xbf" + json.dumps(content).encode()) == [RLE, other]


@pytest.mark.parametrize(
    ("data", "kind", "problem"),
    [
        (b"", "annotations", "malformed"),
        (b"{", "annotations", "malformed"),
        (b"\xff\xfe\x00", "annotations", "malformed"),
        (b"9" * 5000, "annotations", "malformed|is a int"),
        (b"[" * 200_000, "annotations", "malformed"),
        (b"[]", "annotations", "is a list; expected an object"),
        (b"null", "annotations", "is a NoneType"),
        (b"{}", "annotations", "has no 'annotations'"),
        (b'{"annotations": null}', "annotations", "has no 'annotations'"),
        (b'{"annotations": {}}', "annotations", "has a dict as 'annotations'"),
        (b'{"annotations": []}', "no masks", "has no masks"),
        (b'{"annotations": [3]}', "annotations", "no run-length coded .* in annotation 0"),
        (b'{"annotations": [{}]}', "annotations", "no run-length coded .* in annotation 0"),
        (b'{"annotations": [{"segmentation": null}]}', "annotations", "no run-length coded"),
        (b'{"annotations": [{"segmentation": [[0, 0, 1, 1]]}]}', "annotations", "a polygon"),
    ],
)
def test_what_is_no_sa1b_json_is_broken(data: bytes, kind: str, problem: str) -> None:
    with pytest.raises(BrokenRecordError, match=problem) as caught:
        parse_mask_rles(data)
    assert caught.value.kind == kind


def test_the_number_of_masks_is_bounded() -> None:
    annotations = [{"segmentation": RLE}] * (MAX_MASKS + 1)
    assert len(parse_mask_rles(json.dumps({"annotations": annotations[1:]}).encode())) == MAX_MASKS
    with pytest.raises(BrokenRecordError, match=f"has {MAX_MASKS + 1} masks"):
        parse_mask_rles(json.dumps({"annotations": annotations}).encode())
