"""Read the bytes of a training record's image and JSON, from a file or out of a tar."""

import os
from collections.abc import Mapping
from typing import Any

from pixelclip.data.corrupt_record import BrokenRecordError

# Far above any photograph, and above SA-1B's largest JSON (a few MB); a damaged tar or a stray file
# must not fill the memory.
MAX_IMAGE_BYTES = 2**30
MAX_JSON_BYTES = 2**24

FileVersion = tuple[int, int]


def file_version(status: os.stat_result) -> FileVersion:
    """What changes when a file is replaced: its size in bytes and its time in nanoseconds."""
    return status.st_size, status.st_mtime_ns


def read_image_bytes(record: Mapping[str, Any]) -> bytes:
    """The image file of a record of ``SA1BRecords``, as it is stored.

    Raises:
        BrokenRecordError: kind ``"file"``: it is missing, unreadable, cut off, or above 1 GiB, or
            its tar is another one than was indexed.
    """
    return _read(record, record["file_name"], record["image_span"], MAX_IMAGE_BYTES)


def read_annotation_bytes(record: Mapping[str, Any]) -> bytes:
    """The JSON file of a record of ``SA1BRecords``, as it is stored.

    Raises:
        BrokenRecordError: kind ``"file"``: it is missing, unreadable, cut off, or above 16 MiB, or
            its tar is another one than was indexed.
    """
    span = record["annotation_span"]
    return _read(record, record["annotation_file_name"], span, MAX_JSON_BYTES)


def _read(record: Mapping[str, Any], path: str, span: tuple[int, int] | None, limit: int) -> bytes:
    # Opened anew each time: an open file's position would be shared between forked workers.
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            _refuse_another_tar(path, status, record.get("tar_version"))
            offset, size = span or (0, status.st_size)
            if size > limit:
                raise BrokenRecordError(f"{path}: {size} bytes to read; expected at most {limit}")
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise BrokenRecordError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) < size:
        raise BrokenRecordError(
            f"{path} ends {size - len(data)} bytes before the end of the file at byte {offset}"
        )
    return data


def _refuse_another_tar(path: str, status: os.stat_result, indexed: FileVersion | None) -> None:
    """The spans of one tar cut any bytes out of another, which may even look like a record."""
    if indexed is not None and file_version(status) != indexed:
        raise BrokenRecordError(
            f"{path} was replaced or changed after it was indexed (then {indexed[0]} bytes, now "
            f"{status.st_size}); start again with --resume to index it anew"
        )
