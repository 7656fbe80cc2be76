"""Small pictures of a few things, with captions: what the tiny CLIP learns from."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelclip.toy.captions import Sight, make_caption
from pixelclip.toy.colours import name_colour
from pixelclip.toy.painting import Layer, Mask, Painting
from pixelclip.toy.textures import STUFF_NAMES, Size, draw_stuff, smooth_noise
from pixelclip.toy.things import THING_NAMES

# Side of a picture in pixels.
PICTURE_SIDE = 48

# What shows fewer pixels is not spoken of.
_SMALLEST_SIGHT = 10

# Length of a thing's longer side, in pixels.
_EXTENT = (18, 58)


class WebPicture(NamedTuple):
    """A picture (48, 48, 3) uint8 with its caption and the class names of what it shows."""

    pixels: NDArray[np.uint8]
    caption: str
    names: tuple[str, ...]


def make_web_picture(seed: int, index: int) -> WebPicture:
    """Draw the picture of a number: of one or two kinds of stuff, with at most two things."""
    rng = np.random.default_rng((seed, index))
    size = (PICTURE_SIDE, PICTURE_SIDE)
    painting = Painting(size)
    stuff = rng.choice(STUFF_NAMES, size=1 + (rng.random() < 0.5), replace=False).tolist()
    painting.paint_stuff(stuff[0], draw_stuff(rng, stuff[0], size), np.ones(size, np.float32))
    for name in stuff[1:]:
        painting.paint_stuff(name, draw_stuff(rng, name, size), cut_in_two(rng, size))
    things = rng.choice(THING_NAMES, size=rng.choice(3, p=(0.15, 0.55, 0.3))).tolist()
    for name in things:
        x, y = rng.uniform(12, PICTURE_SIDE - 12, size=2)
        painting.paint_thing(rng, name, (x, y), rng.uniform(*_EXTENT))
    seen = [layer for layer in painting.layers if layer.mask.sum() >= _SMALLEST_SIGHT]
    caption = make_caption(
        rng,
        [_describe(painting, layer) for layer in seen if layer.parts],
        [_describe(painting, layer) for layer in seen if not layer.parts],
    )
    return WebPicture(painting.finish(rng), caption, tuple(layer.name for layer in seen))


def _describe(painting: Painting, layer: Layer) -> Sight:
    def colour_of(mask: Mask) -> str:
        return name_colour(painting.pixels[mask].mean(axis=0).clip(0, 1).tolist())

    parts = zip(layer.part_names, layer.parts, strict=True)
    named = [(name, colour_of(mask)) for name, mask in parts if mask.sum() >= _SMALLEST_SIGHT]
    return Sight(layer.name, colour_of(layer.mask), tuple(named))


def cut_in_two(rng: np.random.Generator, size: Size) -> NDArray[np.float32]:
    """Coverage (H, W) of one side of a wavy line, most often of a horizon's lower side."""
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    angle = rng.normal(0, 0.25) if rng.random() < 0.7 else rng.uniform(0, 2 * np.pi)
    middle = rng.uniform(0.3, 0.7)
    height = (rows / size[0] - middle) * np.cos(angle) + (columns / size[1] - 0.5) * np.sin(angle)
    wave = rng.uniform(0, 0.15) * (smooth_noise(rng, size, *(side / 4 for side in size)) - 0.5)
    return (height + wave > 0).astype(np.float32)
