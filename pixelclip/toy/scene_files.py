"""The world's scenes as files: with unlabelled masks to train on, with labels to evaluate on."""

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from pixelclip.data.label_preparation import PreparationReport
from pixelclip.data.sa1b_writing import FoundMask, write_sa1b_annotation
from pixelclip.toy.sam_like_masks import make_masks
from pixelclip.toy.scenes import make_scene
from pixelclip.utils.atomic_write import atomic_writer

# Folder below the root of the data sets.
FOLDER = "toy_scenes"


@dataclass(frozen=True)
class Split:
    """A part of the scenes.

    Attributes:
        name: of its folder.
        seed: of its scenes; no two splits have the same.
        count: number of scenes.
        has_labels: label maps for evaluation, or else masks for training.
    """

    name: str
    seed: int
    count: int
    has_labels: bool


SPLITS = (
    Split("train", seed=11, count=4000, has_labels=False),
    Split("val", seed=12, count=300, has_labels=True),
    Split("test", seed=13, count=600, has_labels=True),
)


def write_scenes(root: Path, workers: int) -> PreparationReport:
    """Draw every scene that is not there yet, and write it.

    Training scenes become ``toy_scenes/train/NUMBER.jpg`` and ``.json`` in SA-1B's layout, the
    others ``toy_scenes/SPLIT/images/NUMBER.jpg`` and ``toy_scenes/SPLIT/labels/NUMBER.png``, whose
    values are indices of ``CLASS_NAMES``.

    Args:
        root: the folder of all data sets.
        workers: how many processes draw, at least 1.

    Raises:
        OSError: a file cannot be written.
    """
    tasks = [task for split in SPLITS for task in _tasks(root, split)]
    missing = [task for task in tasks if not all(path.exists() for path in task.paths)]
    for folder in {path.parent for task in missing for path in task.paths}:
        folder.mkdir(parents=True, exist_ok=True)
    for _ in tqdm(_run_all(missing, workers), "scenes", len(missing), disable=not missing):
        pass
    return PreparationReport(len(missing), len(tasks) - len(missing), ())


@dataclass(frozen=True)
class _Task:
    """One scene to draw, and its two files; the image is written last."""

    split: Split
    index: int
    paths: tuple[Path, Path]

    def __call__(self) -> None:
        scene = make_scene(self.split.seed, self.index)
        image, other = self.paths
        if self.split.has_labels:
            _write_image(other, scene.labels, "png")
        else:
            masks = [FoundMask(m) for m in make_masks(self.split.seed, self.index, scene)]
            write_sa1b_annotation(other, image.name, scene.labels.shape, masks)
        _write_image(image, scene.pixels, "jpeg", quality=95)


def _tasks(root: Path, split: Split) -> Iterator[_Task]:
    folder = root / FOLDER / split.name
    for index in range(split.count):
        name = f"{index:05d}"
        paths = (folder / f"{name}.jpg", folder / f"{name}.json")
        if split.has_labels:
            paths = (folder / "images" / f"{name}.jpg", folder / "labels" / f"{name}.png")
        yield _Task(split, index, paths)


def _run_all(tasks: list[_Task], workers: int) -> Iterator[None]:
    if workers <= 1 or len(tasks) <= 1:
        yield from map(_run, tasks)
        return
    # Started anew rather than forked: a fork of a process with threads may hang.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap_unordered(_run, tasks, chunksize=16)


def _run(task: Callable[[], None]) -> None:
    task()


def _write_image(path: Path, pixels: NDArray[np.uint8], kind: str, **options: int) -> None:
    with atomic_writer(path) as file:
        Image.fromarray(pixels).save(file, kind, **options)
