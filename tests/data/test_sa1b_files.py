import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from torch._utils import ExceptionWrapper

from pixelclip.data import sa1b_files
from pixelclip.data.sa1b_files import (
    MAX_MASKS,
    CorruptRecordError,
    FoundMask,
    parse_mask_rles,
    read_annotation_bytes,
    read_image_bytes,
    write_sa1b_annotation,
)
from tests.data.sa1b_files import random_masks


def record(path: Path, span: tuple[int, int] | None) -> dict[str, Any]:
    names = {"file_name": str(path), "annotation_file_name": str(path)}
    return {**names, "image_span": span, "annotation_span": span}


@pytest.mark.parametrize("read", [read_image_bytes, read_annotation_bytes])
def test_exactly_the_span_or_the_whole_file_is_read(tmp_path: Path, read: Any) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"0123456789")
    assert read(record(path, (3, 4))) == b"3456"
    assert read(record(path, (0, 0))) == b""
    assert read(record(path, None)) == b"0123456789"


@pytest.mark.parametrize(
    ("span", "problem"), [((8, 4), "ends 2 bytes before"), ((99, 4), "ends 4 bytes before")]
)
def test_a_file_cut_after_indexing(tmp_path: Path, span: tuple[int, int], problem: str) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"0123456789")
    with pytest.raises(CorruptRecordError, match=problem) as caught:
        read_image_bytes(record(path, span))
    assert caught.value.kind == "file"


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.jpg", tmp_path):
        with pytest.raises(CorruptRecordError, match="cannot be read") as caught:
            read_image_bytes(record(path, None))
        assert caught.value.kind == "file"


def test_too_large_a_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"0123456789")
    monkeypatch.setattr(sa1b_files, "MAX_JSON_BYTES", 9)
    with pytest.raises(CorruptRecordError, match="10 bytes to read; expected at most 9"):
        read_annotation_bytes(record(path, None))
    assert read_image_bytes(record(path, None)) == b"0123456789"


def test_the_kind_survives_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(CorruptRecordError("truncated", "image")))
    assert (str(error), error.kind) == ("truncated", "image")


def test_torch_can_raise_it_again_out_of_a_worker() -> None:
    try:
        raise CorruptRecordError("truncated", "image")
    except CorruptRecordError:
        wrapper = ExceptionWrapper(where="in a worker")
    try:
        wrapper.reraise()
    except CorruptRecordError as error:
        assert "truncated" in str(error)


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
        (b"9" * 5000, "annotations", "malformed|no 'annotations'"),
        (b"[" * 200_000, "annotations", "malformed"),
        (b"[]", "annotations", "has no 'annotations'; expected a list"),
        (b"null", "annotations", "has no 'annotations'"),
        (b"{}", "annotations", "has no 'annotations'"),
        (b'{"annotations": null}', "annotations", "has no 'annotations'"),
        (b'{"annotations": {}}', "annotations", "has no 'annotations'"),
        (b'{"annotations": []}', "no masks", "has no masks"),
        (b'{"annotations": [3]}', "annotations", "no run-length coded .* in annotation 0"),
        (b'{"annotations": [{}]}', "annotations", "no run-length coded .* in annotation 0"),
        (b'{"annotations": [{"segmentation": null}]}', "annotations", "no run-length coded"),
        (b'{"annotations": [{"segmentation": [[0, 0, 1, 1]]}]}', "annotations", "convert polygons"),
    ],
)
def test_what_is_not_sa1b_json_is_corrupt(data: bytes, kind: str, problem: str) -> None:
    with pytest.raises(CorruptRecordError, match=problem) as caught:
        parse_mask_rles(data)
    assert caught.value.kind == kind


def test_the_number_of_masks_is_bounded() -> None:
    annotations = [{"segmentation": RLE}] * (MAX_MASKS + 1)
    assert len(parse_mask_rles(json.dumps({"annotations": annotations[1:]}).encode())) == MAX_MASKS
    with pytest.raises(CorruptRecordError, match=f"has {MAX_MASKS + 1} masks"):
        parse_mask_rles(json.dumps({"annotations": annotations}).encode())


MASKS = random_masks(3, 5, 30, 47)


def write(tmp_path, masks, size=(30, 47)):
    path = tmp_path / "sa_7.json"
    write_sa1b_annotation(path, "sa_7.jpg", size, masks)
    return path


def test_masks_come_back_as_they_were(tmp_path):
    path = write(tmp_path, [FoundMask(mask.astype(bool)) for mask in MASKS])
    for code, mask in zip(parse_mask_rles(path.read_bytes()), MASKS, strict=True):
        assert np.array_equal(coco_mask.decode(code), mask)


def test_the_file_has_sa1bs_keys(tmp_path):
    mask = np.zeros((30, 47), bool)
    mask[3:10, 5:25] = True
    content = json.loads(write(tmp_path, [FoundMask(mask, 0.9, 0.8)]).read_text())
    described = {"image_id": "sa_7", "width": 47, "height": 30, "file_name": "sa_7.jpg"}
    assert content["image"] == described
    (annotation,) = content["annotations"]
    assert annotation["area"] == 140
    assert annotation["bbox"] == [5, 3, 20, 7]
    assert (annotation["predicted_iou"], annotation["stability_score"]) == (0.9, 0.8)
    assert annotation["segmentation"]["size"] == [30, 47]


@pytest.mark.parametrize(
    ("mask", "problem"),
    [
        (np.ones((47, 30), bool), r"mask 1 is bool of \(47, 30\).*\(30, 47\)"),
        (np.ones((30, 47), np.uint8), "mask 1 is uint8"),
        (np.zeros((30, 47), bool), "mask 1 has no pixel"),
    ],
)
def test_other_masks_are_refused_and_nothing_is_written(tmp_path, mask, problem):
    with pytest.raises(ValueError, match=problem):
        write(tmp_path, [FoundMask(np.ones((30, 47), bool)), FoundMask(mask)])
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "nowhere", [])
