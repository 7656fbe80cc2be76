from pathlib import Path
from typing import Any

import pytest

from pixelclip.data import record_reading
from pixelclip.data.corrupt_record import BrokenRecordError
from pixelclip.data.record_reading import read_annotation_bytes, read_image_bytes


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
def test_a_file_cut_off_after_indexing(tmp_path: Path, span: tuple[int, int], problem: str) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"0123456789")
    with pytest.raises(BrokenRecordError, match=problem) as caught:
        read_image_bytes(record(path, span))
    assert caught.value.kind == "file"


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.jpg", tmp_path):
        with pytest.raises(BrokenRecordError, match="cannot be read") as caught:
            read_image_bytes(record(path, None))
        assert caught.value.kind == "file"


def test_too_large_a_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"0123456789")
    monkeypatch.setattr(record_reading, "MAX_JSON_BYTES", 9)
    with pytest.raises(BrokenRecordError, match="10 bytes to read; expected at most 9"):
        read_annotation_bytes(record(path, None))
    assert read_image_bytes(record(path, None)) == b"0123456789"
