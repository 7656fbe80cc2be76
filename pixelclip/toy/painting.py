"""Paint stuff and objects into an image, and keep track of the pixels that each part covers."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pixelclip.toy.objects import Part, Polygon, make_shape
from pixelclip.toy.textures import TYPICAL_HUE, Size, Texture, shade, smooth_noise

Mask = NDArray[np.bool_]
# Rows and columns of a rectangle in the image.
Window = tuple[slice, slice]

# Chance that an object has its class's typical patterns.
TYPICAL_PATTERN = 0.75

# Polygons are drawn this much larger and averaged: smooth edges.
_OVERSAMPLING = 4


def _plain(rng: np.random.Generator, size: Size, window: Window) -> Texture:
    return np.ones((1, 1), np.float32)


def _stripes(rng: np.random.Generator, size: Size, window: Window) -> Texture:
    rows, columns = np.mgrid[window].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(4, 8)
    along = rows * np.cos(angle) + columns * np.sin(angle)
    return (0.8 + 0.2 * np.sign(np.sin(along * 2 * np.pi / period))).astype(np.float32)


def _speckles(rng: np.random.Generator, size: Size, window: Window) -> Texture:
    return (0.6 + 0.5 * smooth_noise(rng, size, 2, 2)[window]).astype(np.float32)


def _grain(rng: np.random.Generator, size: Size, window: Window) -> Texture:
    return (0.65 + 0.45 * smooth_noise(rng, size, 12, 1.5)[window]).astype(np.float32)


def _bricks(rng: np.random.Generator, size: Size, window: Window) -> Texture:
    rows, columns = np.mgrid[window].astype(np.float32)
    shifted = columns + 3.5 * (rows // 4 % 2)
    return np.where((rows % 4 < 1) | (shifted % 7 < 1), 0.75, 1.0).astype(np.float32)


# Brightness of a part in a window (h, w) of the image, as a factor (h, w) of its color's. The
# random numbers are those of the whole image, so that they do not depend on the window.
PATTERNS: dict[str, Callable[[np.random.Generator, Size, Window], Texture]] = {
    "plain": _plain, "stripes": _stripes, "speckles": _speckles, "grain": _grain, "bricks": _bricks,
}  # fmt: skip


@dataclass
class Layer:
    """A painted object or region of stuff: its class and visible pixels, and those of its parts.

    Masks are (H, W) bool, those of parts by name; stuff has no parts.
    """

    name: str
    mask: Mask
    parts: dict[str, Mask] = field(default_factory=dict)


class Painting:
    """An image (H, W, 3) float32 RGB in 0..1 while it is painted, and its layers back to front."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.pixels = np.zeros((*size, 3), np.float32)
        self.layers: list[Layer] = []

    def paint_stuff(self, name: str, texture: Texture, coverage: Texture) -> None:
        """Paint a texture (H, W, 3) of stuff with the coverage (H, W) in 0..1."""
        self._paint(texture, coverage, (slice(None), slice(None)))
        self._add(Layer(name, coverage > 0.5))

    def paint_object(
        self, rng: np.random.Generator, name: str, center: tuple[float, float], extent: float
    ) -> None:
        """Paint an object of random shape, pose and colors.

        Its center is (x, y), and its extent the length of its longer side, both in pixels.
        """
        shape = _vary_colors(rng, make_shape(rng, name))
        placement = _random_placement(rng, extent)
        layer = Layer(name, np.zeros(self.size, bool))
        for part in shape:
            polygons = [polygon @ placement + center for polygon in part.polygons]
            coverage, window = draw_coverage(polygons, self.size)
            self._paint(self._part_texture(rng, part, window), coverage, window)
            visible = np.zeros(self.size, bool)
            visible[window] = coverage > 0.5
            for mask in layer.parts.values():
                mask &= ~visible
            layer.parts[part.name] = visible
            layer.mask |= visible
        self._add(layer)

    def _part_texture(self, rng: np.random.Generator, part: Part, window: Window) -> Texture:
        hue, saturation, brightness = part.color
        light = 1 + 0.15 * (smooth_noise(rng, self.size, 30, 30)[window] - 0.5)
        pattern = PATTERNS[part.pattern](rng, self.size, window)
        return shade(hue, saturation, brightness * light * pattern)

    def _paint(self, texture: Texture, coverage: Texture, window: Window) -> None:
        pixels = self.pixels[window]
        pixels += (texture - pixels) * coverage[..., None]

    def _add(self, layer: Layer) -> None:
        """Add a layer, which hides what is behind it."""
        for behind in self.layers:
            for mask in (behind.mask, *behind.parts.values()):
                mask &= ~layer.mask
        self.layers.append(layer)

    def finish(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """The image (H, W, 3) uint8 with random light and noise."""
        gain = rng.uniform(0.65, 1.2) * rng.uniform(0.9, 1.1, 3)
        slope = np.linspace(-1, 1, self.size[1]) * rng.uniform(-0.2, 0.2)
        lit = self.pixels * gain * (1 + slope)[None, :, None]
        noisy = lit + rng.normal(0, rng.uniform(0.005, 0.03), lit.shape)
        return (np.clip(noisy, 0, 1) * 255).astype(np.uint8)


def draw_coverage(polygons: list[Polygon], size: Size) -> tuple[Texture, Window]:
    """Draw the union of polygons (n, 2) with smooth edges.

    Returns:
        The fraction (h, w) in 0..1 of each pixel that it covers, inside the smallest window of the
        image that holds it, and that window; an empty one where nothing is visible.
    """
    height, width = size
    canvas = Image.new("L", (width * _OVERSAMPLING, height * _OVERSAMPLING))
    draw = ImageDraw.Draw(canvas)
    for polygon in polygons:
        # (n, 2) -> x, y, x, y, ...
        draw.polygon((polygon * _OVERSAMPLING).ravel().tolist(), fill=255)
    left, top, right, bottom = canvas.getbbox() or (0, 0, 0, 0)
    rows, columns = window = (_to_pixels(top, bottom), _to_pixels(left, right))
    if right == 0:
        return np.zeros((0, 0), np.float32), window
    box = (columns.start, rows.start, columns.stop, rows.stop)
    reduced = canvas.reduce(_OVERSAMPLING, tuple(side * _OVERSAMPLING for side in box))
    return np.asarray(reduced, np.float32) / 255, window


def _to_pixels(start: int, stop: int) -> slice:
    """The image's pixels that a range of the oversampled canvas touches."""
    return slice(start // _OVERSAMPLING, -(-stop // _OVERSAMPLING))


def _random_placement(rng: np.random.Generator, extent: float) -> NDArray[np.float64]:
    """Matrix (2, 2) that stretches, flips, rotates and scales corners (n, 2) to pixels."""
    stretch = np.array([rng.uniform(0.8, 1.0), rng.uniform(0.8, 1.0)])
    flip = np.array([rng.choice([-1.0, 1.0]), 1.0])
    angle = rng.normal(0, 0.15)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.diag(stretch / stretch.max() * flip) @ rotation * extent


def _vary_colors(rng: np.random.Generator, shape: list[Part]) -> list[Part]:
    """Vary the typical colors and patterns, or replace them by any others."""
    shift = rng.normal(0, 0.03) if rng.random() < TYPICAL_HUE else rng.random()
    saturation, brightness = rng.uniform(0.75, 1.2), rng.uniform(0.75, 1.15)
    keeps_pattern = rng.random() < TYPICAL_PATTERN
    other_pattern = str(rng.choice(list(PATTERNS)))
    varied = []
    for part in shape:
        hue, *own = part.color
        pattern = part.pattern if keeps_pattern else other_pattern
        color = (hue + shift, min(own[0] * saturation, 1.0), min(own[1] * brightness, 1.0))
        varied.append(replace(part, color=color, pattern=pattern))
    return varied
