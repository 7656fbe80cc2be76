"""Tiny models and batches of made-up numbers that are the same on every machine.

They depend on names, shapes and seeds only, through NumPy's RandomState, whose numbers never
change. The weights vary about as much as trained ones, so that features differ from patch to patch.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch

from .conftest import TINY_CONVNEXT, TINY_VIT

# Side lengths that need another positional embedding than the pretrained one, in both directions.
RESOLUTIONS = {"vit": (96, 80), "convnext": (128, 96)}


def write_clip_config(folder: Path, kind: str) -> str:
    """Path of the open_clip config of a tiny CLIP without stochastic depth."""
    config = TINY_VIT
    if kind == "convnext":
        visual = {**TINY_CONVNEXT["vision_cfg"], "timm_drop_path": 0.0}
        config = {**TINY_CONVNEXT, "vision_cfg": visual}
    path = folder / f"made_up_{kind}.json"
    path.write_text(json.dumps(config))
    return str(path)


def fill_with_made_up_numbers(model: torch.nn.Module) -> None:
    for name, tensor in model.state_dict().items():
        numbers = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tensor.shape)
        if tensor.dim() > 1:
            numbers *= 1.2 / np.sqrt(np.prod(tensor.shape[1:]))
        else:
            numbers *= 0.1
            numbers += name.endswith((".weight", ".gamma"))
        tensor.copy_(torch.from_numpy(numbers))


def made_up_batch(mask_counts: tuple[int, ...], seed: int = 0) -> list[dict]:
    """Images of colored rectangles, and rectangular masks of 32x32 pixels."""
    generator = np.random.RandomState(seed)
    batch = []
    for count in mask_counts:
        weak, strong = (torch.from_numpy(_draw_image(generator)) for _ in range(2))
        masks = np.zeros((count, 32, 32), bool)
        for mask in masks:
            top, left = generator.randint(0, 20, 2)
            mask[top : top + 12, left : left + 9] = True
        batch.append({"image": weak, "image_strong": strong, "masks": torch.from_numpy(masks)})
    return batch


def _draw_image(generator: np.random.RandomState) -> np.ndarray:
    image = np.empty((3, 48, 56), np.uint8)
    image[:] = generator.randint(0, 256, (3, 1, 1))
    for _ in range(6):
        top, left = generator.randint(0, 40, 2)
        height, width = generator.randint(8, 30, 2)
        color = generator.randint(0, 256, (3, 1, 1))
        image[:, top : top + height, left : left + width] = color
    return image
