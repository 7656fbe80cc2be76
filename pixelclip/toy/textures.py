"""Textures of stuff, drawn with NumPy: (H, W, 3) float32 arrays of RGB in 0..1."""

import colorsys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import KDTree

Texture = NDArray[np.floating[Any]]
Size = tuple[int, int]

# Chance that a region has its class's typical hue rather than any hue.
TYPICAL_HUE = 0.7


def smooth_noise(rng: np.random.Generator, size: Size, rows: float, columns: float) -> Texture:
    """Noise in about 0..1 of shape (H, W) whose blobs are ``rows`` x ``columns`` pixels."""
    height, width = size
    grid = rng.random((max(2, round(height / rows)), max(2, round(width / columns))))
    image = Image.fromarray(grid.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)


def shade(hue: float, saturation: float, values: Texture) -> Texture:
    """Give brightness values (H, W) one hue and saturation, each in 0..1: (H, W, 3)."""
    color = np.array(colorsys.hsv_to_rgb(hue % 1.0, np.clip(saturation, 0, 1), 1.0), np.float32)
    return np.clip(values, 0, 1)[..., None] * color


def blend(first: Texture, second: Texture, weights: Texture) -> Texture:
    """Mix two textures (H, W, 3) by weights (H, W): 0 is the first, 1 is the second."""
    weights = np.clip(weights, 0, 1)[..., None]
    return first * (1 - weights) + second * weights


def _coordinates(size: Size) -> tuple[Texture, Texture]:
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    return rows, columns


def _sky(rng: np.random.Generator, size: Size, hue: float) -> Texture:
    rows, _ = _coordinates(size)
    fade = rows / size[0] * rng.uniform(0.1, 0.5)
    clouds = smooth_noise(rng, size, 9, 20)
    threshold = rng.uniform(0.45, 0.9)
    brightness = np.full(size, rng.uniform(0.75, 1.0), np.float32)
    blue = shade(hue, rng.uniform(0.35, 0.75), brightness)
    blue = blend(blue, np.ones_like(blue), fade)
    return blend(blue, np.full_like(blue, 0.97), (clouds - threshold) * 3)


def _grass(rng: np.random.Generator, size: Size, hue: float) -> Texture:
    blades = smooth_noise(rng, size, rng.uniform(3, 5), 1.2)
    patches = smooth_noise(rng, size, 14, 14)
    return shade(hue, rng.uniform(0.5, 0.9), 0.2 + 0.45 * blades + 0.25 * patches)


def _water(rng: np.random.Generator, size: Size, hue: float) -> Texture:
    rows, _ = _coordinates(size)
    bend = smooth_noise(rng, size, 10, 14) * rng.uniform(3, 9)
    waves = np.sin((rows + bend) * 2 * np.pi / rng.uniform(4, 8))
    deep = shade(hue, rng.uniform(0.6, 0.95), 0.5 + 0.12 * waves)
    return blend(deep, np.ones_like(deep), (waves - rng.uniform(0.6, 0.85)) * 1.5)


def _sand(rng: np.random.Generator, size: Size, hue: float) -> Texture:
    rows, columns = _coordinates(size)
    grains = rng.random(size, dtype=np.float32)
    slope = rng.uniform(-0.5, 0.5)
    dunes = np.sin((rows + slope * columns) * 2 * np.pi / rng.uniform(14, 26))
    return shade(hue, rng.uniform(0.25, 0.45), 0.74 + 0.22 * (grains - 0.5) + 0.07 * dunes)


def _brick(rng: np.random.Generator, size: Size, hue: float) -> Texture:
    rows, columns = _coordinates(size)
    height, width = rng.uniform(4, 7), rng.uniform(9, 14)
    rows = rows + rng.uniform(0, height)
    course = np.floor(rows / height)
    shifted = columns + rng.uniform(0, width) + (course % 2) * width / 2
    mortar = (rows % height < 1.2) | (shifted % width < 1.2)
    brightness = _hash(course * 12.9 + np.floor(shifted / width) * 78.2)
    clay = shade(hue, rng.uniform(0.5, 0.8), 0.45 + 0.3 * brightness)
    return blend(clay, np.full_like(clay, rng.uniform(0.65, 0.85)), mortar.astype(np.float32))


def _wood(rng: np.random.Generator, size: Size, hue: float) -> Texture:
    rows, columns = _coordinates(size)
    is_vertical = rng.random() < 0.5
    across = columns if is_vertical else rows
    grain = smooth_noise(rng, size, *((24, 1.5) if is_vertical else (1.5, 24)))
    plank = rng.uniform(9, 16)
    values = 0.4 + 0.35 * grain + 0.12 * _hash(np.floor(across / plank) * 12.9)
    with_gaps = np.where(across % plank < 1.0, 0.18, values).astype(np.float32)
    return shade(hue, rng.uniform(0.45, 0.75), with_gaps)


def _hash(values: Texture) -> Texture:
    """A number in 0..1 for each value that looks random: each brick and plank has its own tone."""
    return np.modf(np.abs(np.sin(values)) * 437)[0]


def _stone(rng: np.random.Generator, size: Size, hue: float) -> Texture:
    rows, columns = _coordinates(size)
    spacing = rng.uniform(8, 14)
    count = max(3, round(size[0] * size[1] / spacing**2))
    centers = rng.random((count, 2)) * size
    # (H, W, 2) each: the nearest and the second nearest center
    distances, nearest = KDTree(centers).query(np.stack([rows, columns], axis=-1), k=2)
    joint = (distances[..., 1] - distances[..., 0]) < 1.6
    tone = rng.uniform(0.4, 0.75, count).astype(np.float32)[nearest[..., 0]]
    speckle = 0.12 * (rng.random(size, dtype=np.float32) - 0.5)
    values = np.where(joint, 0.25, tone + speckle).astype(np.float32)
    return shade(hue, rng.uniform(0.02, 0.15), values)


def _snow(rng: np.random.Generator, size: Size, hue: float) -> Texture:
    drifts = smooth_noise(rng, size, 12, 18)
    sparkle = (rng.random(size) > 0.97) * 0.1
    return shade(hue, rng.uniform(0.02, 0.12), (0.8 + 0.16 * drifts + sparkle).astype(np.float32))


# name -> (texture, typical hue)
_STUFF: dict[str, tuple[Callable[[np.random.Generator, Size, float], Texture], float]] = {
    "sky": (_sky, 0.58), "grass": (_grass, 0.29), "water": (_water, 0.52), "sand": (_sand, 0.12),
    "brick": (_brick, 0.03), "wood": (_wood, 0.08), "stone": (_stone, 0.62), "snow": (_snow, 0.6),
}  # fmt: skip

STUFF_NAMES: tuple[str, ...] = tuple(_STUFF)


def draw_stuff(rng: np.random.Generator, name: str, size: Size) -> Texture:
    """Draw the texture (H, W, 3) of a kind of stuff, one of ``STUFF_NAMES``."""
    texture, typical_hue = _STUFF[name]
    is_typical = rng.random() < TYPICAL_HUE
    hue = typical_hue + rng.normal(0, 0.025) if is_typical else rng.random()
    return np.clip(texture(rng, size, hue), 0, 1).astype(np.float32)
