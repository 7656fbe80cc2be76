"""Plain photographs without masks, for trainings that make the masks themselves."""

import logging
import os
from collections.abc import Iterator
from typing import Any

from detectron2.data import DatasetCatalog
from tqdm import tqdm

from pixelclip.data.image_mask_pairs import WHOLE_FILE, Pair, PairTable, split_suffix
from pixelclip.data.lazy_records import LazyRecords
from pixelclip.data.sa1b import find_sa1b_root, walk_folders

logger = logging.getLogger(__name__)

PHOTOGRAPHS = "photographs_train"


class PhotographRecords(LazyRecords):
    """Records of the image files below a folder, in little memory.

    A record holds ``"file_name"``, ``"image_id"`` (the path below the folder, without suffix) and
    ``"image_span"``, None: the keys of a record of :class:`SA1BRecords` that concern the image.

    Args:
        root: the folder.
        names: paths below it.
    """

    def __init__(self, root: str, names: Iterator[str]) -> None:
        self._root = root
        self._table = PairTable.from_pairs(Pair(name, WHOLE_FILE, WHOLE_FILE) for name in names)

    def __len__(self) -> int:
        return len(self._table)

    def _make_record(self, position: int) -> dict[str, Any]:
        name = self._table[position].image_name
        return {
            "file_name": os.path.join(self._root, name),
            "image_id": split_suffix(name)[0],
            "image_span": None,
        }


def register_photographs() -> None:
    """Register ``photographs_train``, every image below ``$SAM_DATASETS``, with Detectron2.

    Masks beside the images, and images inside tars, are not looked at: ``sa1b_train`` has those.
    """
    if PHOTOGRAPHS not in DatasetCatalog:
        DatasetCatalog.register(PHOTOGRAPHS, lambda: load_photographs(find_sa1b_root()))


def load_photographs(root: str | os.PathLike[str]) -> PhotographRecords:
    """List every image (.jpg, .jpeg, .png) below a folder, in an order that the names decide.

    Raises:
        FileNotFoundError: the folder does not exist or holds no image.
    """
    root = os.path.abspath(os.path.expanduser(os.fspath(root)))
    if not os.path.isdir(root):
        raise FileNotFoundError(f"{root} is no folder; expected one with photographs")
    records = PhotographRecords(root, _image_names(root))
    if not len(records):
        raise FileNotFoundError(
            f"{root} holds no photograph; looked for .jpg, .jpeg and .png at any depth"
        )
    logger.info("%s: %d photographs", root, len(records))
    return records


def _image_names(root: str) -> Iterator[str]:
    walk = tqdm(walk_folders(root), desc="Looking for photographs", unit=" folders", delay=2)
    for folder, listing in walk:
        for name in listing.images:
            yield os.path.relpath(os.path.join(folder, name), root)
