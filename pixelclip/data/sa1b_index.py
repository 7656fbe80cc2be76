"""Index of SA-1B: which images have masks, and where in a folder or tar both lie.

A tar is read in place. Its headers are walked over once: the index is kept in a file next to the
tar or, where that folder is read-only, in the user's cache folder, and used until the tar changes.
"""

import hashlib
import json
import logging
import os
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from zipfile import ZIP_STORED, ZipFile

import numpy as np
from numpy.typing import NDArray

from pixelclip.data.sa1b_files import FileVersion, file_version
from pixelclip.utils.atomic_write import atomic_writer

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
JSON_SUFFIX = ".json"

Span = tuple[int, int]  # offset and size, in bytes, of a file inside a tar
WHOLE_FILE: Span = (-1, -1)  # the span of a file that is not inside a tar
Pair = tuple[str, Span, Span]  # the name of an image file, and where image and JSON lie
_VERSION = 2
_BLOCK = 512
_EXTENDED_HEADERS = b"xgXLK"  # the types of members that hold names and attributes of others
_MAX_EXTENDED_HEADER = 2**20
_MAX_NAME = 1024  # characters; bounds the memory of an index by the size of its tar
# A damaged header can also hold an invalid number, or send tarfile into endless recursion.
_TAR_ERRORS = (tarfile.TarError, ValueError, OverflowError, RecursionError)


class TarIndexError(ValueError):
    """A file that cannot be read in place as a tar."""


def pack_pairs(pairs: Sequence[Pair]) -> NDArray[np.void]:
    """(P,) structured array: "name" in UTF-8, and the spans "image" and "json" (2,) int64."""
    rows = [(name.encode("utf-8", "surrogateescape"), *spans) for name, *spans in pairs]
    width = max((len(name) for name, *_ in rows), default=1)
    return np.array(rows, [("name", f"S{width}"), ("image", np.int64, 2), ("json", np.int64, 2)])


def unpack_pair(row: Any) -> Pair:
    """The pair in a row of such an array."""
    name, *spans = row
    image_span, json_span = (tuple(span.tolist()) for span in spans)
    return name.decode("utf-8", "surrogateescape"), image_span, json_span


def split_suffix(name: str) -> tuple[str, str]:
    """A file name's stem and its suffix; the suffix is "" unless it is an image's or JSON's."""
    stem, dot, extension = name.rpartition(".")
    suffix = dot + extension
    # A leading point marks a hidden file, such as the "._X.jpg" that macOS writes next to X.jpg.
    if name.startswith(".") or not (suffix == JSON_SUFFIX or suffix.lower() in IMAGE_SUFFIXES):
        return name, ""
    return stem, suffix


class FolderFiles:
    """The images and JSON files among the files of one folder: name -> where it lies."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.images: dict[str, Span] = {}
        self.jsons: dict[str, Span] = {}
        for name in names:
            self.add(name, WHOLE_FILE)

    def add(self, name: str, span: Span) -> None:
        """Add a file, unless it is something else; the later one of a name counts."""
        suffix = split_suffix(name)[1]
        if suffix:
            (self.jsons if suffix == JSON_SUFFIX else self.images)[name] = span

    def pair(self, others: "FolderFiles | None" = None) -> list[Pair]:
        """Take out the images and the JSON files (of another folder) of the same stem.

        They are sorted by image name. A JSON describes one image: of ``X.jpg`` and ``X.png``, the
        first in sorting order gets it.
        """
        jsons = (others or self).jsons
        pairs = []
        for name in sorted(self.images):
            json_span = jsons.pop(split_suffix(name)[0] + JSON_SUFFIX, None)
            if json_span is not None:
                pairs.append((name, self.images.pop(name), json_span))
        return pairs


def describe_unpaired(folders: dict[str, FolderFiles]) -> list[str]:
    """How many images lack a JSON and JSON files an image, and the first of each, in words."""
    problems = []
    for kind, what in (("images", "images without JSON"), ("jsons", "JSON files without image")):
        left = [os.path.join(f, name) for f in folders for name in getattr(folders[f], kind)]
        if left:
            problems.append(f"{len(left)} {what} (first: {min(left)})")
    return problems


class TarIndex(NamedTuple):
    """The pairs of image and JSON in a tar, and what is wrong with it, in words."""

    table: NDArray[np.void]  # see pack_pairs
    problems: list[str]
    version: FileVersion  # of the tar that was walked over


def load_tar_index(path: str) -> TarIndex | None:
    """The kept index of a tar; None if there is none, or none that fits the tar as it is now."""
    found = (_read(place, os.stat(path)) for place in _locations(path) if os.path.exists(place))
    return next(filter(None, found), None)


def build_tar_index(path: str) -> TarIndex:
    """Walk over the headers of a tar and keep the index for the next time.

    Images and JSON files are paired within their folder inside the tar; of two members of the same
    name the later one counts, as in extraction. A truncated tar gives its whole members.

    Raises:
        TarIndexError: the file is not an uncompressed tar.
        OSError: the file cannot be read.
    """
    status = os.stat(path)
    folders: defaultdict[str, FolderFiles] = defaultdict(FolderFiles)
    damage = _walk(path, status.st_size, folders)
    table = pack_pairs([pair for name in sorted(folders) for pair in folders[name].pair()])
    problems = [f"{damage}; what comes before is used"] if damage else []
    problems += describe_unpaired(folders)
    index = TarIndex(table, problems, file_version(status))
    _keep(index, path)
    return index


class _LimitedMember(tarfile.TarInfo):
    """A member whose extended header is read into memory only if it is small.

    tarfile reads as much as the header claims, which in a sparse file may be more than the memory.
    """

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _EXTENDED_HEADERS and self.size > _MAX_EXTENDED_HEADER:
            raise tarfile.ReadError(f"an extended header claims {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]  # not in the type stubs


def _walk(path: str, size: int, folders: dict[str, FolderFiles]) -> str:
    """Collect a tar's images and JSON files; how it is damaged, "" for a whole tar."""
    if size < _BLOCK:
        return f"it is truncated within its first header ({size} bytes)"
    try:
        tar = tarfile.open(path, "r:", tarinfo=_LimitedMember)  # noqa: SIM115 (closed below)
    except _TAR_ERRORS as error:
        remedy = "decompress it, download it again, or move it out of the folder"
        raise TarIndexError(f"{path} is not an uncompressed tar ({error}); {remedy}") from error
    with tar:
        return _walk_members(tar, size, folders)


def _walk_members(tar: tarfile.TarFile, size: int, folders: dict[str, FolderFiles]) -> str:
    position = 0
    try:
        while (member := tar.next()) is not None:
            if member.size < 0:  # it would lead back to members before it, without end
                return f"{member.name} has a negative size"
            if member.offset_data + member.size > size:
                return f"it is truncated within {member.name}"
            position = tar.offset
            folder, name = os.path.split(os.path.normpath(member.name))
            if member.isreg() and not member.issparse() and len(name) <= _MAX_NAME:
                folders[folder].add(name, (member.offset_data, member.size))
            tar.members = []  # type: ignore[attr-defined]  # tarfile remembers all otherwise
    except _TAR_ERRORS as error:
        return f"it is unreadable after byte {position}: {error}"
    # A block of zeros ends a whole tar; tarfile does not tell what stands there instead.
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    block = tar.fileobj.read(_BLOCK)
    if len(block) < _BLOCK:
        return f"it is truncated at byte {tar.offset + len(block)}, without an end mark"
    return f"byte {tar.offset} does not start a tar header" if any(block) else ""


def _locations(path: str) -> list[str]:
    """Where an index may be kept, the place next to the tar first."""
    locations = [path + ".index.npz"]
    cache = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    if os.path.isabs(cache):
        key = hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:32]
        name = f"{os.path.basename(path)}.{key}.index.npz"
        locations.append(os.path.join(cache, "pixelclip", name))
    return locations


def _keep(index: TarIndex, path: str) -> None:
    problems = np.frombuffer(json.dumps(index.problems).encode(), np.uint8)
    locations = _locations(path)
    folder = os.path.dirname(path) or "."
    # os.access alone lets root write into folders that their owner has made read-only.
    is_writable = os.stat(folder).st_mode & 0o222 != 0 and os.access(folder, os.W_OK)
    for location in locations if is_writable else locations[1:]:
        with suppress(OSError):
            os.makedirs(os.path.dirname(location) or ".", exist_ok=True)
            with atomic_writer(location) as file:
                np.savez(file, key=_key(index.version), table=index.table, problems=problems)
            return
    problem = "neither its folder nor the cache folder can be written; it will be built again"
    logger.warning("The index of %s cannot be kept: %s at the next start.", path, problem)


def _key(tar: FileVersion) -> NDArray[np.int64]:
    """What an index must agree with: its format's version, and the tar's size and time."""
    return np.array([_VERSION, *tar], np.int64)


def _read(location: str, status: os.stat_result) -> TarIndex | None:
    try:
        # Stored as it is: one that unpacks to more than its own size could fill the memory.
        with ZipFile(location) as archive:
            if any(member.compress_type != ZIP_STORED for member in archive.infolist()):
                raise ValueError("its arrays are compressed")
        with np.load(location, allow_pickle=False) as arrays:
            if not np.array_equal(arrays["key"], _key(file_version(status))):
                return None
            table, problems = arrays["table"], json.loads(arrays["problems"].tobytes())
        for span in (table["image"], table["json"]):
            if (span < 0).any() or (span > status.st_size - span[:, ::-1]).any():
                raise ValueError("it points behind the tar's end")
        return TarIndex(table, problems, file_version(status))
    # NumPy, zipfile and json raise many kinds of error on a damaged file; all mean: build it again.
    except Exception as error:
        logger.warning("%s is unreadable and will be built again: %s", location, error)
        return None
