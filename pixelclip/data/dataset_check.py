"""What is there of each data set, what is missing or wrong, and the command that mends it."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from tabulate import tabulate  # type: ignore[import-untyped]
from tqdm import tqdm

from pixelclip.data.corrupt_record import BrokenRecordError
from pixelclip.data.datasets.builtin import BENCHMARKS
from pixelclip.data.datasets.coco_stuff_masks import (
    NUM_IMAGES,
    SPLITS,
    count_coco_stuff_masks,
)
from pixelclip.data.datasets.sem_seg_benchmark import (
    SemSegBenchmark,
    datasets_root,
    find_label_pairs,
    list_files,
    list_image_names,
)
from pixelclip.data.image_reading import ImageReadError, read_rgb_image
from pixelclip.data.label_preparation import LabelFileError, read_image_size, read_label
from pixelclip.data.mask_annotations import parse_mask_rles
from pixelclip.data.record_reading import read_annotation_bytes, read_image_bytes
from pixelclip.data.rle import RLEError, sample_masks

MASK_DATASETS = ("sa1b_train", *SPLITS)
DATASETS = ("sa1b_train", *(benchmark.name for benchmark in BENCHMARKS))
_SAMPLE_SIZE = 20

Item = TypeVar("Item")


@dataclass(frozen=True)
class DatasetStatus:
    """The state of one data set.

    Attributes:
        name: the name in Detectron2's catalog.
        num_images: how many of its images are there.
        num_annotations: how many label PNGs, or files with masks, are there.
        official: how many images there should be, in words; "" where nobody has said it.
        problems: what keeps the data set from being used, each with its remedy.
        notes: what is odd but does not.
    """

    name: str
    num_images: int
    num_annotations: int
    official: str
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_usable(self) -> bool:
        """Whether training or evaluation can use the data set."""
        return not self.problems

    @property
    def summary(self) -> str:
        """The state in a few words."""
        if self.problems:
            return "not usable" if self.num_images else "not there"
        return "usable, see below" if self.notes else "usable"


def check_dataset(name: str, deep: bool = False) -> DatasetStatus:
    """Look at the files of a data set, below the folders that the environment names.

    Args:
        name: one of ``DATASETS``, or a data set of ``register_sem_seg_folder``.
        deep: read every label or mask, with a progress bar, instead of about 20 of them.

    Raises:
        ValueError: the name is not one of these.
    """
    if name in MASK_DATASETS and name in DatasetCatalog:
        return _check_masks(name, deep)
    benchmark = MetadataCatalog.get(name).get("benchmark") if name in MetadataCatalog else None
    if not isinstance(benchmark, SemSegBenchmark):
        raise ValueError(
            f"The data set {name!r} cannot be checked. Known are {', '.join(DATASETS)}, and those "
            "that a description file registers (datasets/README.md)."
        )
    return _check_benchmark(benchmark, deep)


def format_statuses(statuses: Sequence[DatasetStatus]) -> str:
    """Return a table of the data sets, followed by what is wrong and how to mend it."""
    table = tabulate(
        [[s.name, s.num_images, s.num_annotations, s.official, s.summary] for s in statuses],
        headers=["data set", "images", "labels or masks", "official", "state"],
    )
    paragraphs = [
        f"{kind}: {text}"
        for status in statuses
        for kind, texts in (("error", status.problems), ("note", status.notes))
        for text in texts
    ]
    return "\n\n".join([table, *paragraphs])


def _check_benchmark(benchmark: SemSegBenchmark, deep: bool) -> DatasetStatus:
    root = datasets_root()
    num_images, num_labels = _count_files(benchmark, root)
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    try:
        pairs = find_label_pairs(benchmark, root)
        problems = _check_labels(benchmark, pairs, deep)
        notes = _note_count(benchmark.name, len(pairs), benchmark.num_images)
    except (OSError, ValueError) as error:
        problems = (str(error),)
    return DatasetStatus(
        benchmark.name, num_images, num_labels, benchmark.official_count, problems, notes
    )


def _count_files(benchmark: SemSegBenchmark, root: Path) -> tuple[int, int]:
    """Count the images and labels that are there; only those of the image list if it is there."""
    try:
        images = list_files(root / benchmark.image_folder, benchmark.image_suffixes).keys()
        labels = list_files(root / benchmark.label_folder, [benchmark.label_suffix]).keys()
    except ValueError:  # two files have the same name, which find_label_pairs reports
        return 0, 0
    try:
        names = set(list_image_names(benchmark, root))
    except (OSError, ValueError):
        return len(images), len(labels)
    return len(names & images), len(names & labels)


def _check_labels(
    benchmark: SemSegBenchmark, pairs: Mapping[str, tuple[Path, Path]], deep: bool
) -> tuple[str, ...]:
    find_problem = partial(_find_label_problem, benchmark=benchmark)
    problems, read = _find_problems(list(pairs.values()), find_problem, benchmark.name, deep)
    if not problems:
        return ()
    folder = (datasets_root() / benchmark.label_folder).absolute()
    remedy = "Mend or replace these files."
    if benchmark.prepare_command is not None:
        remedy = f"Delete these files in {folder}, then run: {benchmark.prepare_command}"
    return (
        f"{benchmark.name}: {len(problems)} of the {read} labels that were read cannot be used: "
        f"{'; '.join(problems[:3])}. {remedy}",
    )


def _find_label_problem(pair: tuple[Path, Path], benchmark: SemSegBenchmark) -> str | None:
    image, label = pair
    try:
        values = np.unique(read_label(label, read_image_size(image)))
    except LabelFileError as error:
        return str(error)
    num_classes = len(benchmark.class_names)
    wrong = values[(values >= num_classes) & (values != benchmark.ignore_label)]
    if not wrong.size:
        return None
    return (
        f"{label} holds the values {wrong.tolist()}, expected 0..{num_classes - 1} and "
        f"{benchmark.ignore_label}"
    )


def _check_masks(name: str, deep: bool) -> DatasetStatus:
    official = (NUM_IMAGES[SPLITS[name]],) if name in SPLITS else ()
    words = "".join(map(str, official))
    try:
        records = DatasetCatalog.get(name)
    except (OSError, ValueError) as error:
        num_images, num_masks = count_coco_stuff_masks(name) if name in SPLITS else (0, 0)
        return DatasetStatus(name, num_images, num_masks, words, (str(error),))
    broken, read = _find_problems(records, _find_record_problem, name, deep)
    notes = _note_count(name, len(records), official)
    if broken:
        notes += (
            f"{name}: {len(broken)} of the {read} images that were read cannot be used, and "
            f"training skips them: {'; '.join(broken[:3])}.",
        )
    # Training goes on with the others, unless there are none.
    problems, notes = (notes, ()) if len(broken) == read else ((), notes)
    return DatasetStatus(name, len(records), len(records), words, problems, notes)


def _find_record_problem(record: Mapping[str, Any]) -> str | None:
    try:
        rles = parse_mask_rles(read_annotation_bytes(record))
        height, width, _ = read_rgb_image(read_image_bytes(record)).shape
        sample_masks(rles, [0], [0], (height, width))
    except (BrokenRecordError, ImageReadError, RLEError) as error:
        return f"{record['image_id']} of {record['file_name']}: {error}"
    return None


def _find_problems(
    items: Sequence[Item], find_problem: Callable[[Item], str | None], name: str, deep: bool
) -> tuple[list[str], int]:
    """Look at all items or at some, evenly spread; return the problems and how many were read."""
    step = 1 if deep else max(1, -(-len(items) // _SAMPLE_SIZE))
    chosen: Iterable[Item] = (items[index] for index in range(0, len(items), step))
    total = len(range(0, len(items), step))
    problems = []
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool, tqdm(total=total, desc=name, disable=not deep) as bar:
        for batch in _batches(chosen, 64 * workers):
            for problem in pool.map(find_problem, batch):
                bar.update()
                if problem is not None:
                    problems.append(problem)
    return problems, total


def _batches(items: Iterable[Item], size: int) -> Iterable[list[Item]]:
    """Cut a long series into lists, so that a pool does not hold all of it at once."""
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    yield batch


def _note_count(name: str, found: int, official: tuple[int, ...]) -> tuple[str, ...]:
    if not official or found in official:
        return ()
    words = " or ".join(map(str, official))
    return (f"{name}: {found} images instead of the official {words}.",)
