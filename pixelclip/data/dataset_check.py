"""Which data sets are complete, what the others lack, and the command that fixes it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from tabulate import tabulate  # type: ignore[import-untyped]
from tqdm import tqdm

from pixelclip.data.datasets import BENCHMARKS
from pixelclip.data.datasets.coco_stuff import MASK_SPLITS, list_mask_files
from pixelclip.data.datasets.sem_seg_benchmark import (
    SemSegBenchmark,
    datasets_root,
    describe_count,
    list_files,
    list_records,
)
from pixelclip.data.images import read_rgb_image
from pixelclip.data.label_preparation import read_label
from pixelclip.data.rle import sample_masks
from pixelclip.data.sa1b_files import parse_mask_rles, read_annotation_bytes, read_image_bytes

DATASETS = ("sa1b_train", *(benchmark.name for benchmark in BENCHMARKS))
_MASK_DATASETS = ("sa1b_train", *MASK_SPLITS)
_SAMPLE_SIZE = 20

Record = Mapping[str, Any]


@dataclass(frozen=True)
class DatasetStatus:
    """The state of one data set.

    Attributes:
        name: the name in Detectron2's catalog.
        num_images: number of its images on the disk.
        num_annotations: number of its label PNGs, or of files with masks.
        official: how many images there should be, in words; "" where it is not known.
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
    benchmark = MetadataCatalog.get(name).get("benchmark") if name in MetadataCatalog else None
    if benchmark is None and name not in _MASK_DATASETS:
        raise ValueError(
            f"The data set {name!r} cannot be checked. Known are {', '.join(DATASETS)}, and those "
            "that a description file registers (datasets/README.md)."
        )
    official = benchmark.num_images if benchmark else MASK_SPLITS.get(name, ("",))[1:]
    words = " or ".join(map(str, official))
    try:
        records = list_records(benchmark) if benchmark else DatasetCatalog.get(name)
    except (OSError, ValueError) as error:
        return DatasetStatus(name, *_count_files(name, benchmark), words, (str(error),))
    problems, notes = _check_records(name, benchmark, records, deep)
    if note := describe_count(name, len(records), official):
        notes.insert(0, note)
    return DatasetStatus(name, len(records), len(records), words, tuple(problems), tuple(notes))


def format_statuses(statuses: Sequence[DatasetStatus]) -> str:
    """Return a table of the data sets, followed by what is wrong and how to fix it."""
    table = tabulate(
        [[s.name, s.num_images, s.num_annotations, s.official, s.summary] for s in statuses],
        headers=["data set", "images", "labels or masks", "official", "state"],
    )
    paragraphs = [table]
    for status in statuses:
        paragraphs += [f"error: {problem}" for problem in status.problems]
        paragraphs += [f"note: {note}" for note in status.notes]
    return "\n\n".join(paragraphs)


def _count_files(name: str, benchmark: SemSegBenchmark | None) -> tuple[int, int]:
    """Count the images, and the labels or masks, of a data set that cannot be loaded."""
    images: dict[str, Path] = {}
    annotations: dict[str, Path] = {}
    try:
        if benchmark is not None:
            root = datasets_root()
            images = list_files(root / benchmark.image_folder, benchmark.image_suffixes)
            annotations = list_files(root / benchmark.label_folder, [benchmark.label_suffix])
        elif name in MASK_SPLITS:
            images, annotations = list_mask_files(name)
    except ValueError:  # two files have one name, which is the problem that is reported
        return 0, 0
    return len(images), len(annotations)


def _check_records(
    name: str, benchmark: SemSegBenchmark | None, records: Sequence[Record], deep: bool
) -> tuple[list[str], list[str]]:
    """Read all records, or some that are evenly spread; return problems and notes."""
    step = 1 if deep else max(1, -(-len(records) // _SAMPLE_SIZE))
    indices = range(0, len(records), step)
    check = partial(_check_label, benchmark) if benchmark else _check_masks
    with ThreadPool() as pool:
        outcomes = pool.imap(lambda index: _find_problem(records[index], check), indices, 8)
        bad = [text for text in tqdm(outcomes, name, len(indices), disable=not deep) if text]
    if not bad:
        return [], []
    remedy = "Training skips them."
    if benchmark is not None:
        remedy = (
            "Fix or replace these files. Of labels outside the class list, add the names of these "
            "classes, or give the value of pixels that do not count as ignore_label."
        )
    if benchmark is not None and benchmark.prepare_command is not None:
        folder = (datasets_root() / benchmark.label_folder).absolute()
        remedy = f"Delete these files in {folder}, then run: {benchmark.prepare_command}"
    text = (
        f"{name}: {len(bad)} of the {len(indices)} images that were read cannot be used: "
        f"{'; '.join(bad[:3])}. {remedy}"
    )
    # Training continues with the others, unless there are none.
    return ([text], []) if benchmark or len(bad) == len(indices) else ([], [text])


def _find_problem(record: Record, check: Callable[[Record], None]) -> str | None:
    try:
        check(record)
    except ValueError as error:
        where = f"{record['image_id']} of {record['file_name']}: " if "image_id" in record else ""
        return f"{where}{error}"
    return None


def _check_label(benchmark: SemSegBenchmark, record: Record) -> None:
    allowed = {*range(len(benchmark.class_names)), benchmark.ignore_label}
    read_label(Path(record["sem_seg_file_name"]), Path(record["file_name"]), allowed)


def _check_masks(record: Record) -> None:
    rles = parse_mask_rles(read_annotation_bytes(record))
    height, width, _ = read_rgb_image(read_image_bytes(record)).shape
    sample_masks(rles, [0], [0], (height, width))
