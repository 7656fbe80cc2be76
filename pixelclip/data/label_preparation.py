"""From a benchmark's published labels to PNGs of train ids, which Detectron2's evaluator reads.

A table of 256 entries says what becomes of each pixel value. A file appears whole or not at all, so
that a run that was killed leaves finished files only and the next one goes on. The same holds for
whatever else is made of an image and its annotation, see :func:`prepare_files`.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from pixelclip.data.datasets.sem_seg_benchmark import (
    SemSegBenchmark,
    datasets_root,
    list_files,
    require_layout,
)
from pixelclip.utils.atomic_write import atomic_writer, remove_leftovers

_NOT_ALLOWED = -1
# How a whole file ends.
_ENDS = {".png": b"\x00\x00\x00\x00IEND\xaeB`\x82", ".json": b"}"}
_EXIF_ORIENTATION = 0x0112
_EXIF_QUARTER_TURNS = (5, 6, 7, 8)


class LabelFileError(ValueError):
    """A published label, or its image, cannot be used; the text names the file and the reason."""


@dataclass(frozen=True)
class LabelTask:
    """One file to prepare: the image that it belongs to, the published file, the file to write."""

    image: Path
    source: Path
    target: Path


@dataclass(frozen=True)
class PreparationReport:
    """What a run did: files written, files that were finished before, and one text per problem."""

    written: int
    skipped: int
    problems: tuple[str, ...]

    def __add__(self, other: "PreparationReport") -> "PreparationReport":
        """Join the reports of two runs over the same labels; a problem of both counts once."""
        problems = dict.fromkeys(self.problems + other.problems)
        return PreparationReport(
            self.written + other.written, self.skipped + other.skipped, tuple(problems)
        )


def label_tasks(names: Iterable[str], images: Path, source: Path, target: Path) -> list[LabelTask]:
    """Return one task per name: ``.jpg`` in ``images``, ``.png`` in ``source`` and ``target``."""
    return [
        LabelTask(images / f"{name}.jpg", source / f"{name}.png", target / f"{name}.png")
        for name in names
    ]


def make_label_table(train_ids: Mapping[int, int]) -> np.ndarray:
    """Turn a mapping of pixel values into a look-up table.

    Args:
        train_ids: published pixel value (0..255) to train id (0..254, or 255 for void).

    Returns:
        (256,) int16; -1 for the values that may not occur.
    """
    table = np.full(256, _NOT_ALLOWED, dtype=np.int16)
    table[list(train_ids)] = list(train_ids.values())
    return table


def convert_label(task: LabelTask, table: np.ndarray) -> bytes:
    """Make the PNG of one image's train ids out of its published label.

    Args:
        task: the files; nothing is written.
        table: of :func:`make_label_table`.

    Returns:
        The content of an 8-bit grayscale PNG of the image's size.

    Raises:
        LabelFileError: as :func:`read_allowed_label`.
    """
    return encode_label(table.astype(np.uint8)[read_allowed_label(task, table)])


def read_allowed_label(task: LabelTask, table: np.ndarray) -> np.ndarray:
    """Read the published label of an image and check it.

    Args:
        task: the files.
        table: of :func:`make_label_table`.

    Returns:
        (H, W) uint8, the published values.

    Raises:
        LabelFileError: the published label or the image is missing or broken, their sizes differ,
            the label is not an 8-bit grayscale or palette image, or it holds a value that is not
            allowed.
    """
    label = read_label(task.source, read_image_size(task.image))
    counts = np.bincount(label.ravel(), minlength=256)
    wrong = np.flatnonzero((counts > 0) & (table == _NOT_ALLOWED))
    if wrong.size:
        allowed = np.flatnonzero(table != _NOT_ALLOWED)
        raise LabelFileError(
            f"{task.source}: holds the values {wrong.tolist()}, expected only "
            f"{allowed.min()}..{allowed.max()} ({allowed.size} of them); download the file anew"
        )
    return label


def read_image_size(path: Path) -> tuple[int, int]:
    """Return (width, height) of an image as it is shown, that is, after its EXIF rotation.

    Raises:
        LabelFileError: the image is missing or broken.
    """
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(_EXIF_ORIENTATION) in _EXIF_QUARTER_TURNS
            return (image.height, image.width) if turned else image.size
    except FileNotFoundError:
        raise LabelFileError(f"{path}: the image is missing") from None
    except Exception as error:  # Pillow raises a dozen types on broken files
        raise LabelFileError(f"{path}: the image cannot be read ({error})") from error


def read_label(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Read the values of a label PNG; those of a palette image are its indices.

    Args:
        path: the PNG.
        size: (width, height) of its image.

    Returns:
        (height, width) uint8.

    Raises:
        LabelFileError: the file is missing or broken, no 8-bit grayscale or palette PNG, or of
            another size.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.verify()  # the checksums: decoding alone lets one flipped bit in six pass
        with Image.open(path, formats=["PNG"]) as image:
            if image.mode not in ("L", "P"):
                raise LabelFileError(
                    f"{path}: expected an 8-bit grayscale or palette image, got mode {image.mode}"
                )
            if image.size != size:
                raise LabelFileError(f"{path}: its size is {image.size}, its image's {size}")
            return np.array(image)
    except FileNotFoundError:
        raise LabelFileError(f"{path}: the label is missing") from None
    except LabelFileError:
        raise
    except Exception as error:  # Pillow raises a dozen types on broken files
        raise LabelFileError(f"{path}: the label cannot be read ({error})") from error


def encode_label(label: np.ndarray) -> bytes:
    """Return an 8-bit grayscale PNG of an (H, W) uint8 array."""
    content = BytesIO()
    Image.fromarray(label).save(content, format="PNG")
    return content.getvalue()


def prepare_labels(
    tasks: Sequence[LabelTask], table: np.ndarray, workers: int
) -> PreparationReport:
    """Convert all label PNGs that are not finished yet with a table; see :func:`prepare_files`.

    Args:
        tasks: the labels, each with another target.
        table: of :func:`make_label_table`.
        workers: how many threads.
    """
    return prepare_files(tasks, partial(convert_label, table=table), workers)


def prepare_files(
    tasks: Sequence[LabelTask], convert: Callable[[LabelTask], bytes], workers: int
) -> PreparationReport:
    """Write all targets that are not finished yet, with a progress bar.

    A target is finished when it is a whole PNG or JSON not older than its source.

    Args:
        tasks: the files, each with another target.
        convert: returns the content of a task's target, or raises LabelFileError.
        workers: how many threads; Pillow and zlib, which do most of the work, release Python's
            lock.

    Returns:
        The counts, and the problems in the order of the tasks. A target with a problem is not
        written, the others are.

    Raises:
        OSError: a target cannot be written (no permission, disk full).
    """
    for folder in {task.target.parent for task in tasks}:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
    pending = [task for task in tasks if not _is_finished(task)]
    with ThreadPoolExecutor(workers) as pool:
        outcomes = pool.map(partial(_try_to_write, convert=convert), pending)
        bar = tqdm(outcomes, total=len(pending), unit="label")
        problems = [outcome for outcome in bar if outcome is not None]
    return PreparationReport(
        len(pending) - len(problems), len(tasks) - len(pending), tuple(problems)
    )


def prepare_label_folder(
    benchmark: SemSegBenchmark,
    published_folder: str,
    train_ids: Mapping[int, int],
    root: Path,
    workers: int,
) -> PreparationReport:
    """Write the label PNGs of a benchmark that is every image of a folder, as train ids.

    Args:
        benchmark: says where the images are and the labels go.
        published_folder: folder of the published label PNGs, below the root.
        train_ids: see :func:`make_label_table`.
        root: the folder of all benchmarks.
        workers: how many files are worked on at a time, at least 1.

    Returns:
        What was done. An image without a label and a label without an image are problems in it.

    Raises:
        FileNotFoundError: the published layout is not there.
        OSError: a file cannot be written.
    """
    require_layout(benchmark.name, root, [benchmark.image_folder, published_folder])
    images, published = root / benchmark.image_folder, root / published_folder
    names = sorted(list_files(images, [".jpg"]).keys() | list_files(published, [".png"]).keys())
    tasks = label_tasks(names, images, published, root / benchmark.label_folder)
    return prepare_labels(tasks, make_label_table(train_ids), workers)


def run_prepare_command(
    description: str,
    prepare: Callable[..., PreparationReport],
    arguments: Sequence[str] | None = None,
    splits: Sequence[str] = (),
) -> int:
    """Run a prepare function as a command line with ``--root`` and ``--workers``.

    Args:
        description: text of ``--help``.
        prepare: called with the keywords ``root`` and ``workers``, and ``split`` where there are
            splits.
        arguments: the command line, by default the process's.
        splits: parts of the data set that ``--split`` chooses from; the first is the default.

    Returns:
        Exit code: 0 where every label is prepared, else 1. Problems go to stderr, one line each,
        and are followed by a summary.
    """
    options = _parse_arguments(description, arguments, splits)
    try:
        report = prepare(**vars(options))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if report == PreparationReport(0, 0, ()):
        print("error: there is no label to prepare; the folders are empty", file=sys.stderr)
        return 1
    for problem in report.problems:
        print(f"error: {problem}", file=sys.stderr)
    print(
        f"{report.written} labels written, {report.skipped} were finished before, "
        f"{len(report.problems)} could not be prepared."
    )
    return 1 if report.problems else 0


def _parse_arguments(
    description: str, arguments: Sequence[str] | None, splits: Sequence[str]
) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--root",
        type=Path,
        default=datasets_root(),
        help="folder of all benchmarks; default: $DETECTRON2_DATASETS or ./datasets (%(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=_positive_int,
        default=os.cpu_count() or 1,
        help="files worked on at a time (%(default)s)",
    )
    if splits:
        parser.add_argument(
            "--split", choices=splits, default=splits[0], help="what to prepare (%(default)s)"
        )
    return parser.parse_args(arguments)


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {value}")
    return value


def _try_to_write(task: LabelTask, convert: Callable[[LabelTask], bytes]) -> str | None:
    """Write a target; return what is wrong with it if it cannot be made."""
    try:
        content = convert(task)
    except LabelFileError as error:
        return str(error)
    with atomic_writer(task.target) as file:
        file.write(content)
    return None


def _is_finished(task: LabelTask) -> bool:
    try:
        if task.target.stat().st_mtime_ns < task.source.stat().st_mtime_ns:
            return False
        return task.target.read_bytes().endswith(_ENDS[task.target.suffix])
    except FileNotFoundError:
        return False
