"""Find the images and videos that a command line names, and a place for what is made of each."""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
# Below the output; what else lies there may be inputs.
RESULT_FOLDERS = ("overlays", "labels", "results")


@dataclass(frozen=True)
class PredictionInput:
    """An image or a video.

    Attributes:
        path: of the file.
        name: where its results belong below an output folder, without a suffix; no two inputs
            have the same, whatever the case of the letters, as some disks take them.
        is_video: whether it is a video.
    """

    path: Path
    name: PurePath
    is_video: bool


def find_inputs(
    patterns: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str]
) -> list[PredictionInput]:
    """Images and videos, each once, in the order of the patterns and then of their paths.

    Args:
        patterns: files, folders (with all folders in them) and globs such as "photos/**/*.jpg".
            Hidden files in folders are passed over; of a file that is named, any suffix is taken.
        output: folder of the results; files in its ``RESULT_FOLDERS`` are no inputs.

    Raises:
        FileNotFoundError: a pattern that nothing fits; the text names it.
    """
    paths: dict[str, Path] = {}
    results = [os.path.realpath(os.path.join(output, name)) for name in RESULT_FOLDERS]
    for pattern in patterns:
        found = list(_expand(os.path.expanduser(pattern), results))
        if not found:
            raise FileNotFoundError(
                f"{os.fspath(pattern)!r} is no file, no glob that fits a file, and no folder of "
                f"images or videos ({', '.join(IMAGE_SUFFIXES + VIDEO_SUFFIXES)})."
            )
        for path in found:
            paths.setdefault(os.path.realpath(path), path)
    return _name_results(list(paths.values()))


def _expand(pattern: str, results: Sequence[str]) -> Iterator[Path]:
    if os.path.isdir(pattern):
        yield from _walk(pattern, results)
    elif os.path.exists(pattern):
        yield Path(pattern)
    else:
        for match in sorted(glob.glob(pattern, recursive=True)):
            if os.path.isfile(match) and not _is_inside(match, results):
                yield Path(match)


def _walk(folder: str, results: Sequence[str]) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and os.path.realpath(os.path.join(root, name)) not in results
        )
        for name in sorted(files):
            suffix = PurePath(name).suffix.lower()
            if not name.startswith(".") and suffix in IMAGE_SUFFIXES + VIDEO_SUFFIXES:
                yield Path(root, name)


def _is_inside(path: str, folders: Sequence[str]) -> bool:
    parents = Path(os.path.realpath(path)).parents
    return any(Path(folder) in parents for folder in folders)


def _name_results(paths: Sequence[Path]) -> list[PredictionInput]:
    """Name the results like the files, with the suffix where a.jpg and a.png lie in one folder."""
    places = [_place(path) for path in paths]
    counts = Counter(_ignore_case(place.with_suffix("")) for place in places)
    names = [
        place if counts[_ignore_case(place.with_suffix(""))] > 1 else place.with_suffix("")
        for place in places
    ]
    if len({_ignore_case(name) for name in names}) < len(names):  # a.jpg, a.png and a.jpg.png
        names = list(_make_distinct(places))
    return [
        PredictionInput(path, name, path.suffix.lower() in VIDEO_SUFFIXES)
        for path, name in zip(paths, names, strict=True)
    ]


def _make_distinct(places: Sequence[PurePath]) -> Iterator[PurePath]:
    """Lengthen the later ones of places that differ in the case of letters only."""
    taken: set[str] = set()
    for place in places:
        while _ignore_case(place) in taken:
            place = place.with_name(f"{place.name}_")
        taken.add(_ignore_case(place))
        yield place


def _ignore_case(place: PurePath) -> str:
    return str(place).casefold()


def _place(path: Path) -> PurePath:
    """The path from the current folder, or from the root where it is not below the current one.

    So files of the same name in several folders have several places, today and tomorrow.
    """
    absolute = Path(os.path.abspath(path))
    current = Path.cwd()
    if current in absolute.parents:
        return absolute.relative_to(current)
    return absolute.relative_to(absolute.anchor)
