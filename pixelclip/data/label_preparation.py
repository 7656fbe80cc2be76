"""From a benchmark's published labels to PNGs of train ids, which Detectron2's evaluator reads.

Files are written atomically, so a killed run leaves finished files only, and the next run resumes.
"""

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image
from tqdm.contrib.concurrent import thread_map

from pixelclip.data.datasets.sem_seg_benchmark import list_files, require_layout
from pixelclip.utils.atomic_write import atomic_writer, remove_leftovers


class LabelFileError(ValueError):
    """A published label, or its image, cannot be used; the text names the file and the reason."""


@dataclass(frozen=True)
class LabelTask:
    """One file to prepare: ``convert`` makes the content of ``target`` or raises LabelFileError."""

    image: Path
    source: Path
    target: Path
    convert: Callable[["LabelTask"], bytes]


@dataclass(frozen=True)
class PreparationReport:
    """What a run did: files written, files finished before, and each problem once."""

    written: int
    skipped: int
    problems: tuple[str, ...]


def label_tasks(
    names: Iterable[str],
    folders: Sequence[Path],
    convert: Callable[[LabelTask], bytes],
    suffix: str = ".png",
) -> list[LabelTask]:
    """Return one task per name: ``.jpg``, ``.png`` and the suffix in the three folders."""
    images, source, target = folders
    return [
        LabelTask(images / f"{name}.jpg", source / f"{name}.png", target / (name + suffix), convert)
        for name in names
    ]


def read_image_size(path: Path) -> tuple[int, int]:
    """Return (width, height) of an image as it is shown, that is, after its EXIF rotation.

    Raises:
        LabelFileError: the image is missing or damaged.
    """
    with _explained(f"{path}: the image"), Image.open(path) as image:
        is_turned = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        return (image.height, image.width) if is_turned else image.size


def read_label(path: Path, image: Path, allowed: Collection[int]) -> np.ndarray:
    """Read the values of a label PNG; those of a palette image are its indices.

    Args:
        path: the PNG.
        image: its image, which must have the same size.
        allowed: the values (0..255) that it may hold.

    Returns:
        (H, W) uint8.

    Raises:
        LabelFileError: the label or the image is missing or damaged, their sizes differ, the label
            is not an 8-bit grayscale or palette image, or it holds another value.
    """
    size = read_image_size(image)
    with _explained(f"{path}: the label"):
        with Image.open(path, formats=["PNG"]) as file:
            file.verify()  # the checksums: decoding alone misses one flipped bit in six
        with Image.open(path, formats=["PNG"]) as file:
            if file.mode not in ("L", "P") or file.size != size:
                raise LabelFileError(
                    f"{path}: mode {file.mode} and size {file.size}, expected an 8-bit grayscale "
                    f"or palette PNG (mode L or P) of its image's size {size}; replace the file"
                )
            label = np.array(file)
    wrong = set(np.flatnonzero(np.bincount(label.ravel())).tolist()) - set(allowed)
    if wrong:
        raise LabelFileError(
            f"{path}: holds the values {sorted(wrong)}, expected {_format_ranges(allowed)}; "
            "replace the file"
        )
    return label


def convert_label(task: LabelTask, train_ids: Mapping[int, int]) -> bytes:
    """Make the PNG of one image's train ids out of its published label.

    Args:
        task: the files; nothing is written.
        train_ids: the published values (0..255) and the train id of each (0..254, or 255 for void).

    Raises:
        LabelFileError: as :func:`read_label`.
    """
    table = np.zeros(256, np.uint8)
    table[list(train_ids)] = list(train_ids.values())
    return encode_label(table[read_label(task.source, task.image, train_ids)])


def encode_label(label: np.ndarray) -> bytes:
    """Return an 8-bit grayscale PNG of an (H, W) uint8 array."""
    content = BytesIO()
    Image.fromarray(label).save(content, format="PNG")
    return content.getvalue()


def prepare_files(tasks: Sequence[LabelTask], workers: int) -> PreparationReport:
    """Write all targets that are not finished yet, with a progress bar.

    A target is finished when it is not older than its source. One with a problem is not written,
    the others are.

    Args:
        tasks: the files, each with another target.
        workers: how many threads; Pillow and zlib, which do most of the work, release the GIL.

    Raises:
        OSError: a target cannot be written (no permission, disk full).
    """
    for folder in {task.target.parent for task in tasks}:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
    pending = [task for task in tasks if not _is_finished(task)]
    outcomes = thread_map(_try_to_write, pending, max_workers=workers, unit="label")
    problems = [outcome for outcome in outcomes if outcome is not None]
    written, skipped = len(pending) - len(problems), len(tasks) - len(pending)
    return PreparationReport(written, skipped, tuple(dict.fromkeys(problems)))


def prepare_label_folder(
    name: str,
    folders: Sequence[str],
    convert: Callable[[LabelTask], bytes],
    root: Path,
    workers: int,
    suffix: str = ".png",
) -> PreparationReport:
    """Convert the labels of every image of a folder; one without the other is a problem.

    Args:
        name: the data set, for messages.
        folders: of the images (.jpg), the published labels (.png) and the files to write.
        convert: see :class:`LabelTask`.
        root: the folder of all benchmarks, which holds ``folders``.
        workers: how many files are converted at a time, at least 1.
        suffix: of the files to write.

    Raises:
        FileNotFoundError: the published layout is not there.
        OSError: a file cannot be written.
    """
    require_layout(name, root, folders[:2])
    paths = [root / folder for folder in folders]
    names = list_files(paths[0], [".jpg"]).keys() | list_files(paths[1], [".png"]).keys()
    return prepare_files(label_tasks(sorted(names), paths, convert, suffix), workers)


def run_preparation(prepare: Callable[..., PreparationReport], **options: Any) -> int:
    """Run a prepare function with the options of its command line and print what it did.

    Returns:
        Exit code: 0 where every label is prepared, else 1. Problems go to stderr, one line each.

    Raises:
        ValueError: there is nothing to prepare; or what ``prepare`` raises.
    """
    report = prepare(**options)
    if report == PreparationReport(0, 0, ()):
        raise ValueError("there is no label to prepare; the folders are empty")
    for problem in report.problems:
        print(f"error: {problem}", file=sys.stderr)
    print(
        f"{report.written} files written, {report.skipped} were finished before, "
        f"{len(report.problems)} could not be prepared."
    )
    return 1 if report.problems else 0


@contextmanager
def _explained(file: str) -> Iterator[None]:
    """Turn what Pillow raises, a dozen types, into a LabelFileError."""
    try:
        yield
    except LabelFileError:
        raise
    except FileNotFoundError:
        raise LabelFileError(f"{file} is missing; download it again") from None
    except Exception as error:
        raise LabelFileError(f"{file} cannot be read ({error})") from error


def _format_ranges(values: Iterable[int]) -> str:
    """Format integers as ranges: "0..10, 12, 255"."""
    ranges = []
    for _, run in groupby(enumerate(sorted(values)), lambda pair: pair[1] - pair[0]):
        first, *others = (value for _, value in run)
        ranges.append(f"{first}..{others[-1]}" if others else str(first))
    return ", ".join(ranges)


def _try_to_write(task: LabelTask) -> str | None:
    """Write a target; return what is wrong with it if it cannot be made."""
    try:
        content = task.convert(task)
    except LabelFileError as error:
        return str(error)
    with atomic_writer(task.target) as file:
        file.write(content)
    return None


def _is_finished(task: LabelTask) -> bool:
    try:
        return task.target.stat().st_mtime_ns >= task.source.stat().st_mtime_ns
    except FileNotFoundError:
        return False
