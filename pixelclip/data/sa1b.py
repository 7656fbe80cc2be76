"""SA-1B, as it is published or in any mixture of layouts, as a sequence of training records.

Below one root, at any depth, may lie (images of other sources work the same way):

    sa_000000.tar                          any *.tar: read in place, see sa1b_index.py
    folder/X.jpg + X.json                  an image (.jpg, .jpeg, .png) next to its JSON
    images/a/X.jpg + annotations/a/X.json  two trees of the same shape
"""

import fcntl
import logging
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from detectron2.data import DatasetCatalog
from numpy.typing import NDArray
from tqdm import tqdm

from pixelclip.data.sa1b_files import FileVersion
from pixelclip.data.sa1b_index import (
    JSON_SUFFIX,
    WHOLE_FILE,
    FolderFiles,
    Pair,
    build_tar_index,
    describe_unpaired,
    load_tar_index,
    pack_pairs,
    split_suffix,
    unpack_pair,
)

logger = logging.getLogger(__name__)

ROOT_VARIABLE = "SAM_DATASETS"
ROOT_DATASETS = ("sa1b_train", "images_train", "photographs_train")  # the last is an old name
_LOOKED_FOR = (
    "*.tar, images (.jpg, .jpeg, .png) next to a .json of the same name, "
    "or images/**/X.jpg with annotations/**/X.json"
)


class _Source(NamedTuple):
    """A tar, or a folder of images with the folder of their JSON files."""

    images: str
    jsons: str
    table: NDArray[np.void]  # see pack_pairs
    version: FileVersion | None = None  # of the tar
    problems: tuple[str, ...] = ()  # what is wrong with the tar or folder


class SA1BRecords(Sequence[dict[str, Any]]):
    """Records of the images of some tars and folders, made when they are asked for.

    A record holds plain values: ``"file_name"`` (path of the image, or of the tar that holds it),
    ``"image_id"`` (the image's name without folder and suffix), ``"image_span"`` ((offset, size) in
    bytes inside the tar, or None), ``"annotation_file_name"`` and ``"annotation_span"`` (the same
    for the JSON); ``"tar_version"``: the tar's size and time when it was indexed, or None. All
    records together are a few arrays, about 50 bytes an image. A slice is a list of records.
    """

    def __init__(self, sources: Sequence[_Source]) -> None:
        self._sources = [source for source in sources if len(source.table) or source.problems]
        self._starts = np.cumsum([0, *(len(source.table) for source in self._sources)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: Any) -> Any:
        positions = range(len(self))[index]
        if isinstance(positions, range):
            return [self._make_record(position) for position in positions]
        return self._make_record(positions)

    @property
    def problems(self) -> list[str]:
        """What is wrong with the tars and folders, as :func:`load_sa1b` logs it."""
        return [f"{one.images}: {problem}" for one in self._sources for problem in one.problems]

    def split(self) -> "list[SA1BRecords]":
        """The records of each tar and each folder that has any, in their order."""
        return [type(self)([source]) for source in self._sources if len(source.table)]

    def image_name(self, position: int) -> str:
        """The name of an image file, also of one inside a tar, without folder."""
        return self._find(position)[1][0]

    def _find(self, position: int) -> tuple[_Source, Pair]:
        number = np.searchsorted(self._starts, position, side="right") - 1
        source = self._sources[number]
        return source, unpack_pair(source.table[position - self._starts[number]])

    def _make_record(self, position: int) -> dict[str, Any]:
        (images, jsons, _, version, _), (name, image_span, json_span) = self._find(position)
        stem = split_suffix(name)[0]
        is_in_tar = version is not None
        return {
            "file_name": images if is_in_tar else os.path.join(images, name),
            "image_id": stem,
            "image_span": image_span if is_in_tar else None,
            "annotation_file_name": jsons if is_in_tar else os.path.join(jsons, stem + JSON_SUFFIX),
            "annotation_span": json_span if is_in_tar else None,
            "tar_version": version,
        }


class ImageRecords(SA1BRecords):
    """Records of plain images without masks, for trainings that make the masks themselves.

    Of a record of :class:`SA1BRecords` they have what concerns the image; ``"image_id"`` is the
    path below the folder, without suffix.
    """

    def _make_record(self, position: int) -> dict[str, Any]:
        record = super()._make_record(position)
        return {key: record[key] for key in ("file_name", "image_id", "image_span")}


def register_sa1b() -> None:
    """Register ``sa1b_train`` with Detectron2; its root ``$SAM_DATASETS`` is read on first use."""
    DatasetCatalog.register("sa1b_train", lambda: load_sa1b(find_sa1b_root()))


def register_images() -> None:
    """Register ``images_train``, every image below ``$SAM_DATASETS``, also by its old name."""
    for name in ROOT_DATASETS[1:]:
        if name not in DatasetCatalog:
            DatasetCatalog.register(name, partial(_load_images_by_name, name))


def _load_images_by_name(name: str) -> ImageRecords:
    if name != "images_train":
        logger.warning("The data set %s is deprecated: it is now called images_train.", name)
    return load_images(find_sa1b_root())


def find_sa1b_root() -> str:
    """Return the folder that ``$SAM_DATASETS`` names.

    Raises:
        FileNotFoundError: the variable is not set, or its folder does not exist.
    """
    if not os.environ.get(ROOT_VARIABLE):
        raise FileNotFoundError(
            f"the environment variable {ROOT_VARIABLE} is not set; set it to the folder that holds "
            f"SA-1B or other images with masks ({_LOOKED_FOR})"
        )
    return _existing_folder(os.environ[ROOT_VARIABLE])


def _existing_folder(root: str | os.PathLike[str]) -> str:
    root = os.path.abspath(os.path.expanduser(os.fspath(root)))
    if not os.path.isdir(root):
        raise FileNotFoundError(
            f"{root} is not a folder; {ROOT_VARIABLE} must name the folder that holds {_LOOKED_FOR}"
        )
    return root


def load_sa1b(root: str | os.PathLike[str]) -> SA1BRecords:
    """Index every image with masks below a folder, in an order that only the names decide.

    What may lie in the folder is said at the top of this file. Images without JSON, JSON files
    without image, and truncated tars are reported in the log.

    Raises:
        FileNotFoundError: the folder does not exist, or nothing below it is an image with masks.
        TarIndexError: a tar is compressed, or not a tar.
    """
    root = _existing_folder(root)
    found: list[_Source | str] = []  # the tars by their path, until they are indexed
    for folder, names in _walk_folders(root, "images with masks"):
        found += _pair_folder(root, folder, names)
        found += [os.path.join(folder, name) for name in names if name.endswith(".tar")]
    tars = _index_tars([item for item in found if isinstance(item, str)])
    records = SA1BRecords([tars[item] if isinstance(item, str) else item for item in found])
    if not len(records):
        raise FileNotFoundError(
            f"{root} holds no image with masks; looked for {_LOOKED_FOR}. Point {ROOT_VARIABLE} to "
            "the folder of SA-1B's tars, or put them there (compressed tars must be decompressed). "
            f"To find masks in images of your own: pixelclip masks {shlex.quote(root)}"
        )
    logger.info("%s: %d images with masks", root, len(records))
    return records


def load_images(root: str | os.PathLike[str]) -> ImageRecords:
    """List every image (.jpg, .jpeg, .png) below a folder, in an order that the names decide.

    Masks next to the images, and images inside tars, are not read: :func:`load_sa1b` has those.

    Raises:
        FileNotFoundError: the folder does not exist or holds no image.
    """
    root = _existing_folder(root)
    pairs: list[Pair] = []
    for folder, names in _walk_folders(root, "images"):
        paths = (os.path.join(folder, name) for name in FolderFiles(names).images)
        pairs += [(os.path.relpath(path, root), WHOLE_FILE, WHOLE_FILE) for path in paths]
    table = pack_pairs(pairs)
    if not len(table):
        looked_for = ".jpg, .jpeg and .png at any depth"
        raise FileNotFoundError(f"{root} holds no image; looked for {looked_for}")
    logger.info("%s: %d images", root, len(table))
    return ImageRecords([_Source(root, root, table)])


def _walk_folders(root: str, what: str) -> Iterator[tuple[str, list[str]]]:
    """Every folder below the root, and the root, each with the sorted names of its files.

    Links are followed, but no folder comes twice; what is hidden is left out.
    """
    seen = set()
    walk = os.walk(root, onerror=_leave_out, followlinks=True)
    for folder, folders, names in tqdm(walk, desc=f"Looking for {what}", unit=" folders", delay=2):
        status = os.stat(folder)
        is_new = (status.st_dev, status.st_ino) not in seen
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if is_new and not name.startswith("."))
        if is_new:
            yield folder, sorted(name for name in names if not name.startswith("."))


def _leave_out(error: OSError) -> None:
    if not isinstance(error, PermissionError):  # such as lost+found at the root of a disk
        raise error
    logger.warning("%s is left out: %s", error.filename, error.strerror)


def _pair_folder(root: str, folder: str, names: list[str]) -> list[_Source]:
    """Pair a folder's images with the JSON files next to them, then with those of its twin."""
    files = FolderFiles(names)
    next_to_images = _Source(folder, folder, pack_pairs(files.pair()))
    sources = []
    annotations = _twin(root, folder, "images", "annotations")
    if files.images and annotations:
        pairs = files.pair(FolderFiles(os.listdir(annotations)))
        sources.append(_Source(folder, annotations, pack_pairs(pairs)))
    twin = _twin(root, folder, "annotations", "images")
    if files.jsons and twin:
        # Only to find the JSON files without image: the pairs are made when the twin has its turn.
        FolderFiles(os.listdir(twin)).pair(files)
    problems = describe_unpaired({"": files})
    _warn(folder, problems)
    return [next_to_images._replace(problems=tuple(problems)), *sources]


def _twin(root: str, folder: str, name: str, twin_name: str) -> str | None:
    """The folder at the same place of the other of the two trees, if it exists."""
    parts = os.path.relpath(folder, root).split(os.sep)
    if name not in parts:
        return None
    position = len(parts) - 1 - parts[::-1].index(name)
    twin = os.path.join(root, *parts[:position], twin_name, *parts[position + 1 :])
    return twin if os.path.isdir(twin) else None


def _index_tars(paths: list[str]) -> dict[str, _Source]:
    """Load the tars' indices, and build those that are missing."""
    indices = {path: load_tar_index(path) for path in paths}
    missing = [path for path, index in indices.items() if index is None]
    for path in tqdm(missing, desc="Indexing tars", disable=not missing):
        with open(path, "rb") as tar:
            # So that one process builds it and the others load it. Some network file systems have
            # no locks; then several processes may do the same work.
            with suppress(OSError):
                fcntl.flock(tar, fcntl.LOCK_EX)
            indices[path] = load_tar_index(path) or build_tar_index(path)
    sources = {}
    for path, index in indices.items():
        assert index is not None
        _warn(path, index.problems)
        sources[path] = _Source(path, path, index.table, index.version, tuple(index.problems))
    return sources


def _warn(source: str, problems: list[str]) -> None:
    if problems:
        logger.warning("%s: %s", source, "; ".join(problems))
