"""Where the images and JSON files lie inside a tar, so that they are read without extracting it.

Building an index walks over the tar's headers once; it is then kept in a file beside the tar or,
where that folder is read-only, in the user's cache folder, and used until the tar changes.
"""

import hashlib
import json
import logging
import os
import posixpath
import tarfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

import numpy as np
from numpy.typing import NDArray

from pixelclip.data.image_mask_pairs import (
    JSON_SUFFIX,
    PairTable,
    Span,
    Unpaired,
    count_unpaired,
    pair_by_stem,
    split_suffix,
)
from pixelclip.data.record_reading import FileVersion, file_version
from pixelclip.utils.atomic_write import atomic_writer

logger = logging.getLogger(__name__)

_VERSION = 1
_BLOCK = 512
_MAX_EXTENDED_HEADER = 2**20
_COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}


class TarIndexError(ValueError):
    """A file that cannot be read in place as a tar."""


@dataclass(frozen=True)
class TarIndex:
    """The pairs of image and JSON in a tar, and what is wrong with it."""

    table: PairTable
    unpaired: Unpaired
    damage: str  # where and how the tar breaks off; "" for a whole tar
    version: FileVersion  # of the tar that was walked over


@dataclass
class _Scan:
    """What a walk over a tar's headers has found: name -> span, folder by folder."""

    images: dict[str, dict[str, Span]] = field(default_factory=dict)
    jsons: dict[str, dict[str, Span]] = field(default_factory=dict)
    damage: str = ""
    position: int = 0  # the bytes of the tar that were passed


def load_tar_index(path: str) -> TarIndex | None:
    """The kept index of a tar; None if there is none, or none that fits the tar as it is now."""
    for location in _locations(path):
        if os.path.exists(location):
            index = _read(location, os.stat(path))
            if index is not None:
                return index
    return None


def build_tar_index(path: str, on_progress: Callable[[int], object] = lambda _: None) -> TarIndex:
    """Walk over a tar's headers and keep the index for the next time.

    Images and JSON files are paired by their stem within their folder inside the tar; of two
    members of the same name the later one counts, as in extraction. A tar that breaks off gives the
    whole members before the break.

    Args:
        path: an uncompressed tar, its members in any order.
        on_progress: called with the number of bytes of the tar that were newly passed.

    Raises:
        TarIndexError: the file is compressed, no tar, or stores its images as sparse files.
        OSError: the file cannot be read.
    """
    status = os.stat(path)
    scan = _scan(path, status.st_size, on_progress)
    on_progress(status.st_size - scan.position)
    tables = [
        pair_by_stem(scan.images.setdefault(folder, {}), scan.jsons.setdefault(folder, {}))
        for folder in sorted(scan.images.keys() | scan.jsons.keys())
    ]
    unpaired = count_unpaired(_full_names(scan.images), _full_names(scan.jsons))
    table = PairTable.concatenate([PairTable.from_pairs(()), *tables])
    index = TarIndex(table, unpaired, scan.damage, file_version(status))
    _keep(index, path, status)
    return index


def _full_names(folders: dict[str, dict[str, Span]]) -> list[str]:
    return [posixpath.join(folder, name) for folder, names in folders.items() for name in names]


def _scan(path: str, size: int, on_progress: Callable[[int], object]) -> _Scan:
    scan = _Scan()
    _refuse_compressed(path)
    if size < _BLOCK:
        scan.damage = f"it breaks off in its first header ({size} bytes)"
        return scan
    try:
        tar = tarfile.open(path, "r:", tarinfo=_LimitedMember)  # noqa: SIM115 (closed below)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise TarIndexError(
            f"{path} is no tar file ({error}); download it again, or move it out of the folder"
        ) from error
    with tar:
        _walk(tar, size, scan, on_progress)
    return scan


class _LimitedMember(tarfile.TarInfo):
    """A member whose extended header is read into memory only where it is as small as they are.

    tarfile reads as much as the header claims, which in a sparse file may be more than the memory.
    """

    _EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
    _LONG_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        is_extended = self.type in (*self._EXTENDED, *self._LONG_NAMES)
        if is_extended and self.size > _MAX_EXTENDED_HEADER:
            raise tarfile.ReadError(
                f"an extended header claims {self.size} bytes; at most {_MAX_EXTENDED_HEADER} "
                "expected"
            )
        return super()._proc_member(tar)  # type: ignore[misc]  # not in the type stubs


def _refuse_compressed(path: str) -> None:
    with open(path, "rb") as file:
        head = file.read(8)
    for magic, name in _COMPRESSIONS.items():
        if head.startswith(magic):
            raise TarIndexError(
                f"{path} is compressed with {name}, and only an uncompressed tar can be read in "
                "place; decompress it and give the result the suffix .tar"
            )


def _walk(
    tar: tarfile.TarFile, size: int, scan: _Scan, on_progress: Callable[[int], object]
) -> None:
    try:
        while (member := tar.next()) is not None:
            if member.size < 0:  # it would lead back to members before it, without end
                raise tarfile.ReadError(f"{member.name} has a negative size")
            if member.offset_data + member.size > size:
                scan.damage = f"it breaks off within {member.name}"
                return
            on_progress(min(tar.offset, size) - scan.position)
            scan.position = min(tar.offset, size)
            _note(tar, member, scan)
            tar.members = []  # type: ignore[attr-defined]  # tarfile remembers all otherwise
        scan.damage = _damage_at_the_end(tar)
    except TarIndexError:
        raise
    # A damaged header can also hold an invalid number, or send tarfile into endless recursion.
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        scan.damage = f"it is unreadable after byte {scan.position}: {error}"


def _note(tar: tarfile.TarFile, member: tarfile.TarInfo, scan: _Scan) -> None:
    """Add a member to what the scan has found, if it is an image or JSON file."""
    folder, name = posixpath.split(posixpath.normpath(member.name))
    suffix = split_suffix(name)[1]
    if not suffix or not member.isreg():
        return
    if member.issparse():
        raise TarIndexError(
            f"{tar.name!s} stores {member.name} as a sparse file, which cannot be read in place; "
            "pack it again without tar's option --sparse"
        )
    folders = scan.jsons if suffix == JSON_SUFFIX else scan.images
    folders.setdefault(folder, {})[name] = (member.offset_data, member.size)


def _damage_at_the_end(tar: tarfile.TarFile) -> str:
    """What stands instead of the block of zeros that ends a whole tar; tarfile does not tell."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    block = tar.fileobj.read(_BLOCK)
    if block == bytes(_BLOCK):
        return ""
    if len(block) < _BLOCK:
        return f"it breaks off at byte {tar.offset + len(block)}, without an end mark"
    return f"byte {tar.offset} starts no tar header; what follows is left out"


def _locations(path: str) -> list[str]:
    """Where an index may be kept, the place beside the tar first."""
    locations = [path + ".index.npz"]
    cache = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    if os.path.isabs(cache):
        absolute = os.path.abspath(path)
        key = hashlib.sha256(os.fsencode(absolute)).hexdigest()[:32]
        name = f"{os.path.basename(path)}.{key}.index.npz"
        locations.append(os.path.join(cache, "pixelclip", name))
    return locations


def _keep(index: TarIndex, path: str, status: os.stat_result) -> None:
    beside, *cached = _locations(path)
    locations = [beside, *cached] if _is_writable(os.path.dirname(beside) or ".") else cached
    for location in locations:
        with suppress(OSError):
            os.makedirs(os.path.dirname(location) or ".", exist_ok=True)
            _write(index, location, status)
            return
    logger.warning(
        "The index of %s cannot be kept: neither its folder nor the cache folder can be written. "
        "It will be built again at the next start.",
        path,
    )


def _is_writable(folder: str) -> bool:
    # os.access alone lets root write into folders that their owner has made read-only.
    return os.stat(folder).st_mode & 0o222 != 0 and os.access(folder, os.W_OK)


def _write(index: TarIndex, location: str, status: os.stat_result) -> None:
    report = json.dumps([index.unpaired, index.damage]).encode()
    with atomic_writer(location) as file:
        np.savez(
            file,
            key=_key(status),
            names=index.table.names,
            name_ends=index.table.name_ends,
            spans=index.table.spans,
            report=np.frombuffer(report, np.uint8),
        )


def _key(status: os.stat_result) -> NDArray[np.int64]:
    """What an index must agree with: its format's version, and the tar's size and time."""
    return np.array([_VERSION, *file_version(status)], np.int64)


def _read(location: str, status: os.stat_result) -> TarIndex | None:
    try:
        _refuse_compressed_arrays(location)
        with np.load(location, allow_pickle=False) as arrays:
            if not np.array_equal(arrays["key"], _key(status)):
                return None
            table = PairTable(arrays["names"], arrays["name_ends"], arrays["spans"])
            unpaired, damage = json.loads(arrays["report"].tobytes())
        _check(table, status.st_size)
        return TarIndex(table, Unpaired(*unpaired), str(damage), file_version(status))
    # NumPy, zipfile and json raise many kinds of error on a damaged file; all mean: build it again.
    except Exception as error:
        logger.warning("%s is unreadable and will be built again: %s", Path(location), error)
        return None


def _refuse_compressed_arrays(location: str) -> None:
    """An index is stored as it is; one that unpacks to more than its own size could fill memory."""
    with ZipFile(location) as archive:
        if any(member.compress_type != ZIP_STORED for member in archive.infolist()):
            raise ValueError("its arrays are compressed")


def _check(table: PairTable, tar_size: int) -> None:
    name_ends, spans = table.name_ends, table.spans
    if (table.names.dtype, name_ends.dtype, spans.dtype) != (np.uint8, np.int64, np.int64):
        raise ValueError("its arrays have other types than expected")
    if table.names.ndim != 1 or name_ends.ndim != 1 or spans.shape != (len(name_ends), 4):
        raise ValueError("its arrays do not fit each other")
    if len(name_ends) and not (
        name_ends[0] >= 0 and (np.diff(name_ends) >= 0).all() and name_ends[-1] == len(table.names)
    ):
        raise ValueError("its names are damaged")
    if (
        (spans < 0).any()
        or (spans > tar_size).any()
        or (spans[:, 0::2] + spans[:, 1::2] > tar_size).any()
    ):
        raise ValueError("it points behind the tar's end")
