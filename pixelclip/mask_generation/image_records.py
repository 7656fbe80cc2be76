"""The photographs of a folder, and where each one's copy and masks go."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pixelclip.data.image_mask_pairs import IMAGE_SUFFIXES, JSON_SUFFIX

# What training cannot pair with a JSON is written as JPEG.
_OTHER_SUFFIXES = (".webp", ".tif", ".tiff", ".bmp")


# Below the output; beside it lie reports, which are not to be trained on.
COPIES = "photographs"


@dataclass(frozen=True)
class Photograph:
    """A photograph, and the two files to be made of it.

    Attributes:
        source: the photograph.
        image: its copy (or link), with a suffix that training knows.
        annotation: the JSON of its masks, beside the copy.
    """

    source: Path
    image: Path
    annotation: Path


def find_photographs(images: Path, output: Path) -> list[Photograph]:
    """List the photographs in a folder and the folders in it, sorted.

    Copies keep their folders. Where two photographs of a folder differ in their suffix only, the
    later ones' copies carry it in their names: ``a.jpg`` and ``a.png`` become ``a`` and ``a_png``.

    Args:
        images: the folder; hidden files and folders, and ``output``, do not count.
        output: the folder for everything that is written, the copies in ``photographs``.

    Raises:
        FileNotFoundError: there is no such folder, or no photograph in it.
        ValueError: ``output`` is a file, or the folder of photographs lies in it.
    """
    if not images.is_dir():
        raise FileNotFoundError(f"{images} is no folder; expected one with photographs.")
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; give a folder to write to.")
    if images.resolve().is_relative_to(output.resolve()):
        raise ValueError(f"The photographs of {images} lie in {output}; give another folder.")
    found = [
        photograph
        for folder, names in _walk(images, output.resolve())
        for photograph in _name_copies(folder, names, output / COPIES / folder.relative_to(images))
    ]
    if not found:
        suffixes = ", ".join((*IMAGE_SUFFIXES, *_OTHER_SUFFIXES))
        raise FileNotFoundError(f"{images} holds no photograph; looked for {suffixes} in it.")
    return found


def _walk(images: Path, output: Path) -> Iterator[tuple[Path, list[str]]]:
    for parent, folders, names in os.walk(images):
        folder = Path(parent)
        is_output = {name: (folder / name).resolve() == output for name in folders}
        folders[:] = sorted(n for n in folders if not n.startswith(".") and not is_output[n])
        yield folder, sorted(name for name in names if not name.startswith("."))


def _name_copies(folder: Path, names: list[str], target: Path) -> Iterator[Photograph]:
    taken: set[str] = set()
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() not in IMAGE_SUFFIXES + _OTHER_SUFFIXES:
            continue
        # Compared in lower case, as some disks do.
        while stem.lower() in taken:
            stem = f"{stem}_{suffix[1:]}"
        taken.add(stem.lower())
        kept = suffix if suffix.lower() in IMAGE_SUFFIXES else ".jpg"
        yield Photograph(folder / name, target / f"{stem}{kept}", target / f"{stem}{JSON_SUFFIX}")
