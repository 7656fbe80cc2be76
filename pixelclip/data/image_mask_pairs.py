"""Images of one folder or tar, each paired with the SA-1B JSON of its masks, in little memory."""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
JSON_SUFFIX = ".json"

Span = tuple[int, int]
"""Offset and size, in bytes, of a file inside a tar."""
WHOLE_FILE: Span = (-1, -1)
"""The span of a file that is not inside a tar."""


class Pair(NamedTuple):
    """An image file name without folder, and where image and JSON lie in their container."""

    image_name: str
    image_span: Span
    json_span: Span


class Unpaired(NamedTuple):
    """How many files lack their counterpart, and the first of them ("" for none)."""

    images: int
    first_image: str
    jsons: int
    first_json: str


@dataclass(frozen=True)
class PairTable:
    """The pairs of one or many containers, P of them, as a few flat arrays."""

    names: NDArray[np.uint8]  # (characters,) image names, UTF-8, one behind the other
    name_ends: NDArray[np.int64]  # (P,) where each name ends in `names`
    spans: NDArray[np.int64]  # (P, 4) offset and size of the image, offset and size of the JSON

    def __len__(self) -> int:
        return len(self.name_ends)

    def __getitem__(self, index: int) -> Pair:
        """The pair at a position in 0..P-1; raises IndexError outside."""
        end = int(self.name_ends[index])
        start = int(self.name_ends[index - 1]) if index else 0
        image_offset, image_size, json_offset, json_size = self.spans[index].tolist()
        name = self.names[start:end].tobytes().decode("utf-8", "surrogateescape")
        return Pair(name, (image_offset, image_size), (json_offset, json_size))

    @classmethod
    def from_pairs(cls, pairs: Iterable[Pair]) -> "PairTable":
        """Pack pairs, in their order."""
        names, name_ends, spans = array("B"), array("q"), array("q")
        for pair in pairs:
            names.frombytes(pair.image_name.encode("utf-8", "surrogateescape"))
            name_ends.append(len(names))
            spans.extend((*pair.image_span, *pair.json_span))
        return cls(
            np.array(names, np.uint8),
            np.array(name_ends, np.int64),
            np.array(spans, np.int64).reshape(-1, 4),  # (4P,) -> (P, 4)
        )

    @classmethod
    def concatenate(cls, tables: list["PairTable"]) -> "PairTable":
        """One table with the pairs of all given ones, in order; at least one table."""
        sizes = np.array([len(table.names) for table in tables], np.int64)
        first = np.repeat(np.cumsum(sizes) - sizes, [len(table) for table in tables])
        return cls(
            np.concatenate([table.names for table in tables]),
            np.concatenate([table.name_ends for table in tables]) + first,
            np.concatenate([table.spans for table in tables]),
        )


def split_suffix(name: str) -> tuple[str, str]:
    """A file name's stem and its suffix; the suffix is "" unless it is an image's or JSON's.

    Example:
        >>> split_suffix("sa_1.JPG"), split_suffix("notes.txt")
        (('sa_1', '.JPG'), ('notes.txt', ''))
    """
    stem, dot, extension = name.rpartition(".")
    suffix = dot + extension
    # A leading point marks a hidden file, such as the "._X.jpg" that macOS writes beside X.jpg.
    if name.startswith(".") or not (suffix == JSON_SUFFIX or suffix.lower() in IMAGE_SUFFIXES):
        return name, ""
    return stem, suffix


def pair_by_stem(images: dict[str, Span], jsons: dict[str, Span]) -> PairTable:
    """Pair images with the JSON files of the same stem, sorted by image name.

    What is paired is taken out of both dictionaries; what lacks its counterpart stays. A JSON
    describes one image: of ``X.jpg`` and ``X.png``, the first in sorting order gets it.

    Args:
        images: image file names without folder, and where they lie.
        jsons: JSON file names without folder, and where they lie.
    """

    def pairs() -> Iterator[Pair]:
        for name in sorted(images):
            json_span = jsons.pop(split_suffix(name)[0] + JSON_SUFFIX, None)
            if json_span is not None:
                yield Pair(name, images.pop(name), json_span)

    return PairTable.from_pairs(pairs())


def count_unpaired(images: Iterable[str], jsons: Iterable[str]) -> Unpaired:
    """Count the images without JSON and the JSON files without image, with the first of each."""
    lonely_images, lonely_jsons = sorted(images), sorted(jsons)
    return Unpaired(
        len(lonely_images),
        next(iter(lonely_images), ""),
        len(lonely_jsons),
        next(iter(lonely_jsons), ""),
    )
