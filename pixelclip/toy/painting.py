"""Paint stuff and things into a picture, and keep which pixels each part covers."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pixelclip.toy.textures import TYPICAL_HUE, Size, Texture, shade, smooth_noise
from pixelclip.toy.things import Part, Polygon, make_shape

Mask = NDArray[np.bool_]

# Chance that a thing has its class's own patterns.
TYPICAL_PATTERN = 0.75

# Polygons are drawn this much larger and averaged: smooth edges.
_OVERSAMPLING = 4


def _plain(rng: np.random.Generator, size: Size) -> Texture:
    return np.ones(size, np.float32)


def _stripes(rng: np.random.Generator, size: Size) -> Texture:
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(4, 8)
    along = rows * np.cos(angle) + columns * np.sin(angle)
    return (0.8 + 0.2 * np.sign(np.sin(along * 2 * np.pi / period))).astype(np.float32)


def _speckles(rng: np.random.Generator, size: Size) -> Texture:
    return (0.6 + 0.5 * smooth_noise(rng, size, 2, 2)).astype(np.float32)


def _grain(rng: np.random.Generator, size: Size) -> Texture:
    return (0.65 + 0.45 * smooth_noise(rng, size, 12, 1.5)).astype(np.float32)


def _bricks(rng: np.random.Generator, size: Size) -> Texture:
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    shifted = columns + 3.5 * (rows // 4 % 2)
    return np.where((rows % 4 < 1) | (shifted % 7 < 1), 0.75, 1.0).astype(np.float32)


# Brightness of a part, as a factor (H, W) on its colour's.
PATTERNS: dict[str, Callable[[np.random.Generator, Size], Texture]] = {
    "plain": _plain,
    "stripes": _stripes,
    "speckles": _speckles,
    "grain": _grain,
    "bricks": _bricks,
}


@dataclass
class Layer:
    """What was painted in one go, as it is seen at the end.

    Attributes:
        name: class name.
        mask: (H, W) bool, the pixels that are still seen.
        parts: such a mask for each part; none for stuff.
    """

    name: str
    mask: Mask
    parts: list[Mask]


class Painting:
    """A picture while it is painted, from the back to the front.

    Attributes:
        pixels: (H, W, 3) float32 RGB in 0..1.
        layers: what was painted, from the back to the front.
    """

    def __init__(self, size: Size) -> None:
        self.size = size
        self.pixels = np.zeros((*size, 3), np.float32)
        self.layers: list[Layer] = []

    def paint_stuff(self, name: str, texture: Texture, coverage: Texture) -> None:
        """Paint stuff of a texture (H, W, 3) where the coverage (H, W) in 0..1 says."""
        self._paint(texture, coverage)
        self._cover(coverage > 0.5)
        self.layers.append(Layer(name, coverage > 0.5, []))

    def paint_thing(
        self, rng: np.random.Generator, name: str, centre: tuple[float, float], extent: float
    ) -> None:
        """Paint a thing.

        Args:
            rng: source of its shape, pose and colours.
            name: class name.
            centre: x, y in pixels.
            extent: length of its longer side in pixels.
        """
        shape = _recolour(rng, make_shape(rng, name))
        placement = _random_placement(rng, extent)
        layer = Layer(name, np.zeros(self.size, bool), [])
        for part in shape:
            polygons = [polygon @ placement + centre for polygon in part.polygons]
            coverage = draw_coverage(polygons, self.size)
            self._paint(self._part_texture(rng, part), coverage)
            is_seen = coverage > 0.5
            for mask in layer.parts:
                mask &= ~is_seen
            layer.parts.append(is_seen)
            layer.mask |= is_seen
        self._cover(layer.mask)
        self.layers.append(layer)

    def _part_texture(self, rng: np.random.Generator, part: Part) -> Texture:
        hue, saturation, brightness = part.colour
        light = 1 + 0.15 * (smooth_noise(rng, self.size, 30, 30) - 0.5)
        return shade(hue, saturation, brightness * light * PATTERNS[part.pattern](rng, self.size))

    def _paint(self, texture: Texture, coverage: Texture) -> None:
        self.pixels += (texture - self.pixels) * coverage[..., None]

    def _cover(self, mask: Mask) -> None:
        """Take pixels away from what was painted before."""
        for layer in self.layers:
            layer.mask &= ~mask
            for part in layer.parts:
                part &= ~mask

    def finish(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Light the scene and take the photograph: (H, W, 3) uint8."""
        gain = rng.uniform(0.65, 1.2) * rng.uniform(0.9, 1.1, 3)
        slope = np.linspace(-1, 1, self.size[1]) * rng.uniform(-0.2, 0.2)
        lit = self.pixels * gain * (1 + slope)[None, :, None]
        noisy = lit + rng.normal(0, rng.uniform(0.005, 0.03), lit.shape)
        return (np.clip(noisy, 0, 1) * 255).astype(np.uint8)


def draw_coverage(polygons: list[Polygon], size: Size) -> Texture:
    """Share (H, W) in 0..1 of each pixel that the union of polygons (n, 2) covers."""
    height, width = size
    canvas = Image.new("L", (width * _OVERSAMPLING, height * _OVERSAMPLING))
    draw = ImageDraw.Draw(canvas)
    for polygon in polygons:
        draw.polygon([tuple(corner) for corner in polygon * _OVERSAMPLING], fill=255)
    return np.asarray(canvas.reduce(_OVERSAMPLING), np.float32) / 255


def _random_placement(rng: np.random.Generator, extent: float) -> NDArray[np.float64]:
    """Matrix (2, 2) that stretches, turns, mirrors and enlarges corners (n, 2) to pixels."""
    stretch = np.array([rng.uniform(0.8, 1.0), rng.uniform(0.8, 1.0)])
    mirror = np.array([rng.choice([-1.0, 1.0]), 1.0])
    angle = rng.normal(0, 0.15)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.diag(stretch / stretch.max() * mirror) @ turn * extent


def _recolour(rng: np.random.Generator, shape: list[Part]) -> list[Part]:
    """Vary the typical colours a little, or take quite other ones, and the same for patterns."""
    shift = rng.normal(0, 0.03) if rng.random() < TYPICAL_HUE else rng.random()
    saturation, brightness = rng.uniform(0.75, 1.2), rng.uniform(0.75, 1.15)
    keeps_pattern = rng.random() < TYPICAL_PATTERN
    pattern = str(rng.choice(list(PATTERNS)))
    return [
        replace(
            part,
            colour=(
                part.colour[0] + shift,
                min(part.colour[1] * saturation, 1.0),
                min(part.colour[2] * brightness, 1.0),
            ),
            pattern=part.pattern if keeps_pattern else pattern,
        )
        for part in shape
    ]
