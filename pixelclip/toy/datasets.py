"""The drawn scenes as files: with unlabeled masks to train on, with labels to evaluate on.

``pixelclip.applications`` registers their names with Detectron2.
"""

import multiprocessing
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from numpy.typing import NDArray
from PIL import Image
from scipy.cluster.vq import kmeans2
from torch.nn import functional as F
from tqdm import tqdm

from pixelclip.data.datasets.sem_seg_benchmark import datasets_root, format_command
from pixelclip.data.label_preparation import PreparationReport
from pixelclip.data.sa1b import SA1BRecords, load_sa1b
from pixelclip.data.sa1b_files import FoundMask, write_sa1b_annotation
from pixelclip.modeling.clip_loader import load_clip
from pixelclip.modeling.image_encoder import DenseImageEncoder
from pixelclip.toy.pretraining import normalize_pixels
from pixelclip.toy.scenes import make_masks, make_scene
from pixelclip.utils.atomic_write import atomic_writer

# Folder below the root of the data sets.
FOLDER = "toy_scenes"

CLUSTERS_PER_IMAGE = 8

# Name of a training set -> its folder, and the command that fills it.
_TRAINING_SETS = {
    "toy_scenes_masks_train": ("train", "pixelclip datasets prepare toy_scenes --root {root}"),
    "toy_scenes_clip_masks_train": ("clip_masks", "pixelclip ablations"),
}

# Seed and number of a scene, whether it has labels, its image and its other file.
_Task = tuple[int, int, bool, Path, Path]


@dataclass(frozen=True)
class Split:
    """A split of the scenes, with label maps for evaluation or else masks for training."""

    name: str
    seed: int
    count: int
    has_labels: bool


SPLITS = (
    Split("train", seed=11, count=4000, has_labels=False),
    Split("val", seed=12, count=300, has_labels=True),
    Split("test", seed=13, count=600, has_labels=True),
)


def load_toy_scenes_masks(name: str) -> SA1BRecords:
    """Index a training set: scenes with masks such as SAM's, or found in the tiny CLIP's features.

    Raises:
        FileNotFoundError: they have not been drawn; the text names the command.
    """
    folder_name, template = _TRAINING_SETS[name]
    folder = datasets_root() / FOLDER / folder_name
    if not folder.is_dir():
        command = format_command(template, datasets_root())
        raise FileNotFoundError(f"{folder} does not exist; draw the scenes first: {command}")
    return load_sa1b(folder)


def prepare_toy_scenes(root: Path, workers: int) -> PreparationReport:
    """:func:`write_scenes` as a command of ``pixelclip datasets prepare``."""
    written, existing = write_scenes(root, workers)
    return PreparationReport(written, existing, ())


def write_scenes(root: Path, workers: int) -> tuple[int, int]:
    """Draw and write every scene that does not exist yet.

    Training scenes become ``toy_scenes/train/NUMBER.jpg`` and ``.json`` in SA-1B's layout, the
    others ``toy_scenes/SPLIT/images/NUMBER.jpg`` and ``toy_scenes/SPLIT/labels/NUMBER.png``, whose
    values are indices of ``CLASS_NAMES``.

    Args:
        root: the folder of all data sets.
        workers: how many processes draw, at least 1.

    Returns:
        How many scenes were written, and how many existed.
    """
    tasks = [task for split in SPLITS for task in _tasks(root, split)]
    missing = [task for task in tasks if not all(path.exists() for path in task[3:])]
    for folder in {path.parent for task in missing for path in task[3:]}:
        folder.mkdir(parents=True, exist_ok=True)
    for _ in tqdm(_draw_all(missing, workers), "scenes", len(missing), disable=not missing):
        pass
    return len(missing), len(tasks) - len(missing)


def _tasks(root: Path, split: Split) -> Iterator[_Task]:
    folder = root / FOLDER / split.name
    image, other = ("images/{}.jpg", "labels/{}.png") if split.has_labels else ("{}.jpg", "{}.json")
    for index in range(split.count):
        number = f"{index:05d}"
        paths = folder / image.format(number), folder / other.format(number)
        yield split.seed, index, split.has_labels, *paths


def _draw_all(tasks: list[_Task], workers: int) -> Iterator[None]:
    if workers <= 1 or len(tasks) <= 1:
        yield from map(_draw, tasks)
        return
    # A fork of a process with threads may hang.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap_unordered(_draw, tasks, chunksize=16)


def _draw(task: _Task) -> None:
    """Draw a scene and write its files, the image last."""
    seed, index, has_labels, image, other = task
    scene = make_scene(seed, index)
    if has_labels:
        _write_image(other, scene.labels, "png")
    else:
        masks = [FoundMask(mask) for mask in make_masks(seed, index, scene)]
        write_sa1b_annotation(other, image.name, scene.labels.shape, masks)
    _write_image(image, scene.pixels, "jpeg", quality=95)


def _write_image(path: Path, pixels: NDArray[np.uint8], kind: str, **options: int) -> None:
    with atomic_writer(path) as file:
        Image.fromarray(pixels).save(file, kind, **options)


def write_clip_masks(cfg: CfgNode) -> Path:
    """Write the training scenes with masks that k-means finds in the features of ``MODEL.CLIP``.

    They stand for the masks that the paper finds in DINO's features. What exists is not written
    again. Returns the folder, in SA-1B's layout.
    """
    source, target = (datasets_root() / FOLDER / name for name in ("train", "clip_masks"))
    target.mkdir(parents=True, exist_ok=True)
    images = [path for path in sorted(source.glob("*.jpg")) if not (target / path.name).exists()]
    encoder = DenseImageEncoder(load_clip(cfg.MODEL.CLIP.ARCH, cfg.MODEL.CLIP.PRETRAINED).visual)
    encoder.eval()
    for path in tqdm(images, "masks of CLIP's features", disable=not images):
        pixels = np.array(Image.open(path).convert("RGB"))
        masks = cluster_pixels(encoder, pixels, seed=zlib.crc32(path.name.encode()))
        annotation = target / f"{path.stem}.json"
        write_sa1b_annotation(annotation, path.name, pixels.shape[:2], masks)
        shutil.copyfile(path, target / path.name)
    return target


@torch.no_grad()
def cluster_pixels(
    encoder: DenseImageEncoder, pixels: NDArray[np.uint8], seed: int
) -> list[FoundMask]:
    """Divide an image (H, W, 3) RGB into at most eight masks of similar features."""
    features = F.normalize(encoder(normalize_pixels(pixels[None]))[0], dim=-1)
    height, width, _ = features.shape
    vectors = features.flatten(0, 1).double().numpy()  # (h*w, d)
    _, labels = kmeans2(vectors, CLUSTERS_PER_IMAGE, minit="++", rng=seed)
    grid = torch.from_numpy(labels).view(1, 1, height, width).float()  # (h*w,) -> (1, 1, h, w)
    enlarged = F.interpolate(grid, size=pixels.shape[:2], mode="nearest")
    return [FoundMask(enlarged[0, 0].eq(label).numpy()) for label in np.unique(labels)]
