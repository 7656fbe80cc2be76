"""SA-1B, as it is published or in any mixture of layouts, as a sequence of training records.

Below one root, at any depth, may lie (own photographs work the same way):

    sa_000000.tar                          any *.tar: read in place, see tar_index.py
    photographs/X.jpg + X.json             an image (.jpg, .jpeg, .png) beside its JSON
    images/a/X.jpg + annotations/a/X.json  two trees of the same shape
"""

import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from detectron2.data import DatasetCatalog
from tqdm import tqdm

from pixelclip.data.image_mask_pairs import (
    JSON_SUFFIX,
    WHOLE_FILE,
    PairTable,
    Span,
    Unpaired,
    count_unpaired,
    pair_by_stem,
    split_suffix,
)
from pixelclip.data.lazy_records import LazyRecords
from pixelclip.data.record_reading import FileVersion
from pixelclip.data.tar_index import TarIndex, build_tar_index, load_tar_index

logger = logging.getLogger(__name__)

ROOT_VARIABLE = "SAM_DATASETS"
_LOOKED_FOR = (
    "*.tar, images (.jpg, .jpeg, .png) beside a .json of the same name, "
    "or images/**/X.jpg with annotations/**/X.json"
)


class _Source(NamedTuple):
    """A tar, or a folder of images with the folder of their JSON files."""

    images: str
    jsons: str
    table: PairTable
    version: FileVersion | None = None  # of the tar


class SA1BRecords(LazyRecords):
    """Records of the images of some tars and folders.

    A record holds plain values: ``"file_name"`` (path of the image, or of the tar that holds it),
    ``"image_id"`` (the image's name without folder and suffix), ``"image_span"`` ((offset, size) in
    bytes inside the tar, or None), ``"annotation_file_name"`` and ``"annotation_span"`` (the same
    for the JSON); ``"tar_version"``: the tar's size and time when it was indexed, or None. All
    records together are a few arrays, about 55 bytes an image.
    """

    def __init__(self, sources: Sequence[_Source]) -> None:
        self._folders = [(source.images, source.jsons, source.version) for source in sources]
        self._source_ends = np.cumsum([len(source.table) for source in sources], dtype=np.int64)
        empty = PairTable.from_pairs(())
        self._table = PairTable.concatenate([empty, *(source.table for source in sources)])

    def __len__(self) -> int:
        return len(self._table)

    def _make_record(self, position: int) -> dict[str, Any]:
        source = np.searchsorted(self._source_ends, position, side="right")
        images, jsons, version = self._folders[source]
        name, image_span, json_span = self._table[position]
        stem = split_suffix(name)[0]
        return {
            "file_name": _locate(images, name, image_span),
            "image_id": stem,
            "image_span": None if image_span == WHOLE_FILE else image_span,
            "annotation_file_name": _locate(jsons, stem + JSON_SUFFIX, json_span),
            "annotation_span": None if json_span == WHOLE_FILE else json_span,
            "tar_version": version,
        }


def _locate(container: str, name: str, span: Span) -> str:
    return os.path.join(container, name) if span == WHOLE_FILE else container


def register_sa1b() -> None:
    """Register ``sa1b_train`` with Detectron2; its root ``$SAM_DATASETS`` is read on first use."""
    DatasetCatalog.register("sa1b_train", lambda: load_sa1b(find_sa1b_root()))


def find_sa1b_root() -> str:
    """Return the folder that ``$SAM_DATASETS`` names.

    Raises:
        FileNotFoundError: the variable is not set, or its folder does not exist.
    """
    root = os.environ.get(ROOT_VARIABLE, "")
    if not root:
        raise FileNotFoundError(
            f"the environment variable {ROOT_VARIABLE} is not set; set it to the folder that holds "
            f"SA-1B or own photographs with masks ({_LOOKED_FOR})"
        )
    root = os.path.abspath(os.path.expanduser(root))
    if not os.path.isdir(root):
        raise FileNotFoundError(
            f"{root} is no folder; {ROOT_VARIABLE} must name the folder that holds {_LOOKED_FOR}"
        )
    return root


def load_sa1b(root: str | os.PathLike[str]) -> SA1BRecords:
    """Index every image with masks below a folder, in an order that only the names decide.

    Images without JSON, JSON files without image, and tars that break off are reported in the log.

    Args:
        root: folder with tars, folders of images, or any mixture; see the top of this file.

    Raises:
        FileNotFoundError: the folder does not exist, or nothing below it is an image with masks.
        TarIndexError: a tar is compressed, stores sparse files, or is no tar.
    """
    root = os.path.abspath(os.path.expanduser(os.fspath(root)))
    if not os.path.isdir(root):
        raise FileNotFoundError(
            f"{root} is no folder; {ROOT_VARIABLE} must name the folder that holds {_LOOKED_FOR}"
        )
    sources = _find_sources(root)
    records = SA1BRecords([source for source in sources if len(source.table)])
    if not len(records):
        raise FileNotFoundError(
            f"{root} holds no image with masks; looked for {_LOOKED_FOR}. Point {ROOT_VARIABLE} to "
            "the folder of SA-1B's tars, or put them there (compressed tars must be decompressed)"
        )
    logger.info("%s: %d images with masks", root, len(records))
    return records


@dataclass
class FolderListing:
    """The names in a folder that matter here, sorted."""

    images: list[str]
    jsons: list[str]
    tars: list[str]
    folders: list[str]


def _find_sources(root: str) -> list[_Source]:
    sources: list[_Source] = []
    tar_positions: list[int] = []
    walk = tqdm(walk_folders(root), desc="Looking for images with masks", unit=" folders", delay=2)
    for folder, listing in walk:
        sources += _pair_folder(root, folder, listing)
        for name in listing.tars:
            tar = os.path.join(folder, name)
            tar_positions.append(len(sources))
            sources.append(_Source(tar, tar, PairTable.from_pairs(())))
    indices = _index_tars([sources[position].images for position in tar_positions])
    for position, index in zip(tar_positions, indices, strict=True):
        sources[position] = sources[position]._replace(table=index.table, version=index.version)
    return sources


def walk_folders(root: str) -> Iterator[tuple[str, FolderListing]]:
    """Every folder below the root, and the root; links are followed, but no folder comes twice."""
    seen: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        try:
            listing = _list(folder)
        except PermissionError as error:  # such as lost+found at the root of a disk
            logger.warning("%s is left out: %s", folder, error.strerror)
            continue
        waiting += [os.path.join(folder, name) for name in reversed(listing.folders)]
        yield folder, listing


def _list(folder: str) -> FolderListing:
    listing = FolderListing([], [], [], [])
    with os.scandir(folder) as entries:
        for entry in entries:
            suffix = split_suffix(entry.name)[1]
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                listing.folders.append(entry.name)
            elif suffix == JSON_SUFFIX:
                listing.jsons.append(entry.name)
            elif suffix:
                listing.images.append(entry.name)
            elif entry.name.endswith(".tar"):
                listing.tars.append(entry.name)
    for names in (listing.images, listing.jsons, listing.tars, listing.folders):
        names.sort()
    return listing


def _pair_folder(root: str, folder: str, listing: FolderListing) -> list[_Source]:
    """Pair a folder's images with the JSON files beside them, then with those of its twin."""
    images = dict.fromkeys(listing.images, WHOLE_FILE)
    jsons = dict.fromkeys(listing.jsons, WHOLE_FILE)
    sources = [_Source(folder, folder, pair_by_stem(images, jsons))]
    annotations = _twin(root, folder, "images", "annotations")
    if images and annotations:
        twin_jsons = dict.fromkeys(_list(annotations).jsons, WHOLE_FILE)
        sources.append(_Source(folder, annotations, pair_by_stem(images, twin_jsons)))
    twin = _twin(root, folder, "annotations", "images")
    if jsons and twin:
        # Only to find the JSON files without image: the pairs are made when the twin has its turn.
        pair_by_stem(dict.fromkeys(_list(twin).images, WHOLE_FILE), jsons)
    _report(folder, count_unpaired(images, jsons), damage="")
    return sources


def _twin(root: str, folder: str, name: str, twin_name: str) -> str | None:
    """The folder at the same place of the other of the two trees, if it exists."""
    parts = os.path.relpath(folder, root).split(os.sep)
    if name not in parts:
        return None
    position = len(parts) - 1 - parts[::-1].index(name)
    twin = os.path.join(root, *parts[:position], twin_name, *parts[position + 1 :])
    return twin if os.path.isdir(twin) else None


def _index_tars(paths: list[str]) -> list[TarIndex]:
    """Load the tars' indices, and build those that are missing."""
    indices = {path: load_tar_index(path) for path in paths}
    missing = [path for path, index in indices.items() if index is None]
    with tqdm(
        total=sum(os.path.getsize(path) for path in missing),
        desc="Indexing tars",
        unit="B",
        unit_scale=True,
        disable=not missing,
    ) as bar:
        built = {path: _build_in_turn(path, bar.update) for path in missing}
    found = [indices[path] or built[path] for path in paths]
    for path, index in zip(paths, found, strict=True):
        _report(path, index.unpaired, index.damage)
    return found


def _build_in_turn(path: str, on_progress: Callable[[int], object]) -> TarIndex:
    """Build a tar's index, unless another process does it first."""
    with open(path, "rb") as tar:
        # Some network file systems have no locks; then several processes may do the same work.
        with suppress(OSError):
            fcntl.flock(tar, fcntl.LOCK_EX)
        return load_tar_index(path) or build_tar_index(path, on_progress)


def _report(source: str, unpaired: Unpaired, damage: str) -> None:
    problems = []
    if damage:
        problems.append(f"{damage}; what comes before is used")
    if unpaired.images:
        problems.append(f"{unpaired.images} images without JSON (first: {unpaired.first_image})")
    if unpaired.jsons:
        problems.append(f"{unpaired.jsons} JSON files without image (first: {unpaired.first_json})")
    if problems:
        logger.warning("%s: %s", source, "; ".join(problems))
