"""Paint stuff and things into a picture, and keep which pixels each part covers."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pixelclip.toy.textures import TYPICAL_HUE, Size, Texture, shade, smooth_noise
from pixelclip.toy.things import Part, Polygon, make_shape

Mask = NDArray[np.bool_]
# Rows and columns of a rectangle in the picture.
Window = tuple[slice, slice]

# Chance that a thing has its class's own patterns.
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


# Brightness of a part in a window (h, w) of the picture, as a factor (h, w) on its colour's. The
# random numbers are those of the whole picture, so that they do not depend on the window.
PATTERNS: dict[str, Callable[[np.random.Generator, Size, Window], Texture]] = {
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
        part_names: the words for the parts.
    """

    name: str
    mask: Mask
    parts: list[Mask] = field(default_factory=list)
    part_names: list[str] = field(default_factory=list)


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
        self._paint(texture, coverage, (slice(None), slice(None)))
        self._cover(coverage > 0.5)
        self.layers.append(Layer(name, coverage > 0.5))

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
        layer = Layer(name, np.zeros(self.size, bool), part_names=[part.name for part in shape])
        for part in shape:
            polygons = [polygon @ placement + centre for polygon in part.polygons]
            coverage, window = draw_coverage(polygons, self.size)
            self._paint(self._part_texture(rng, part, window), coverage, window)
            is_seen = np.zeros(self.size, bool)
            is_seen[window] = coverage > 0.5
            for mask in layer.parts:
                mask &= ~is_seen
            layer.parts.append(is_seen)
            layer.mask |= is_seen
        self._cover(layer.mask)
        self.layers.append(layer)

    def _part_texture(self, rng: np.random.Generator, part: Part, window: Window) -> Texture:
        hue, saturation, brightness = part.colour
        light = 1 + 0.15 * (smooth_noise(rng, self.size, 30, 30)[window] - 0.5)
        pattern = PATTERNS[part.pattern](rng, self.size, window)
        return shade(hue, saturation, brightness * light * pattern)

    def _paint(self, texture: Texture, coverage: Texture, window: Window) -> None:
        seen = self.pixels[window]
        seen += (texture - seen) * coverage[..., None]

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


def draw_coverage(polygons: list[Polygon], size: Size) -> tuple[Texture, Window]:
    """Draw the union of polygons (n, 2) with smooth edges.

    Returns:
        The share (h, w) in 0..1 of each pixel that it covers, inside the smallest window of the
        picture that holds it, and that window; an empty one where nothing is to be seen.
    """
    height, width = size
    canvas = Image.new("L", (width * _OVERSAMPLING, height * _OVERSAMPLING))
    draw = ImageDraw.Draw(canvas)
    for polygon in polygons:
        # (n, 2) -> x, y, x, y, ...
        draw.polygon((polygon * _OVERSAMPLING).ravel().tolist(), fill=255)
    left, top, right, bottom = canvas.getbbox() or (0, 0, 0, 0)
    window = (_to_pixels(top, bottom), _to_pixels(left, right))
    if right == 0:
        return np.zeros((0, 0), np.float32), window
    rows, columns = window
    box = (columns.start, rows.start, columns.stop, rows.stop)
    reduced = canvas.reduce(_OVERSAMPLING, tuple(side * _OVERSAMPLING for side in box))
    return np.asarray(reduced, np.float32) / 255, window


def _to_pixels(start: int, stop: int) -> slice:
    """The picture's pixels that a stretch of the oversampled canvas touches."""
    return slice(start // _OVERSAMPLING, -(-stop // _OVERSAMPLING))


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
