"""Masks that need no segmenter: k-means of the tiny CLIP's own patch features, image by image.

They stand for the masks that the paper makes of DINO's features.
"""

import shutil
import zlib
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from numpy.typing import NDArray
from PIL import Image
from scipy.cluster.vq import kmeans2
from tqdm import tqdm

from pixelclip.data.datasets.sem_seg_benchmark import datasets_root
from pixelclip.data.sa1b_writing import FoundMask, write_sa1b_annotation
from pixelclip.modeling.clip_loader import load_clip
from pixelclip.modeling.image_encoder import DenseImageEncoder
from pixelclip.toy.pretraining import normalise
from pixelclip.toy.scene_files import FOLDER

CLUSTERS_PER_IMAGE = 8


def write_clip_masks(cfg: CfgNode) -> Path:
    """Write the training scenes once more, with masks of the tiny CLIP's features.

    Args:
        cfg: ``MODEL.CLIP`` says which CLIP. What has been written is not written again.

    Returns:
        The folder, in SA-1B's layout.
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
    features = torch.nn.functional.normalize(encoder(normalise(pixels[None]))[0], dim=-1)
    height, width, _ = features.shape
    vectors = features.flatten(0, 1).double().numpy()  # (h*w, d)
    _, labels = kmeans2(vectors, CLUSTERS_PER_IMAGE, minit="++", rng=seed)
    grid = torch.from_numpy(labels).view(1, 1, height, width).float()  # (h*w,) -> (1, 1, h, w)
    enlarged = torch.nn.functional.interpolate(grid, size=pixels.shape[:2], mode="nearest")
    return [FoundMask(enlarged[0, 0].eq(label).numpy()) for label in np.unique(labels)]
