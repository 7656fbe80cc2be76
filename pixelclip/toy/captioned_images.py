"""Small images with captions, as on the web: what the tiny CLIP is pretrained on."""

import colorsys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelclip.toy.objects import THING_NAMES
from pixelclip.toy.painting import Layer, Mask, Painting
from pixelclip.toy.textures import STUFF_NAMES, Size, draw_stuff, smooth_noise

# Side of an image in pixels.
IMAGE_SIDE = 48

# Chance that a caption mentions a visible object or region of stuff, and then color and part.
MENTIONS_OBJECT, MENTIONS_STUFF = 0.9, 0.65
MENTIONS_COLOR, MENTIONS_PART = 0.3, 0.35

# A caption does not mention what covers fewer pixels.
_MIN_AREA = 10

# Length of an object's longer side, in pixels.
_EXTENT = (18, 58)

# Upper end of each hue, as a fraction of a turn, and its word.
_HUES = (
    (0.03, "red"), (0.11, "orange"), (0.19, "yellow"), (0.43, "green"), (0.54, "turquoise"),
    (0.70, "blue"), (0.82, "purple"), (0.94, "pink"), (1.0, "red"),
)  # fmt: skip
_GRAYS = ("black", "grey", "white")

COLOR_NAMES: tuple[str, ...] = tuple(dict.fromkeys([*(n for _, n in _HUES), "brown", *_GRAYS]))

_OPENINGS = (
    "", "", "a photo of", "A photo of", "a picture of", "itap of", "art of", "a bad photo of",
    "a good photo of", "a rendering of", "a drawing of", "a painting of", "a close-up photo of",
    "a cropped photo of", "graffiti of", "my photo of",
)  # fmt: skip
_ARTICLES = ("a", "a", "the", "one", "my", "this")
_ADJECTIVES = (
    "", "", "", "", "old", "nice", "new", "origami", "weird", "clean", "toy", "cool", "dirty",
)  # fmt: skip
_JOINERS = ("and", "and", "with", "next to", "near", ",")
_PLACES = ("on", "in front of", "with", "by", "in", "and", ",", "under", "over")
_ENDINGS = (
    "", "", "", "", "in the scene", "in the scene", "in a video game", ".", ".", "on a fine day",
    "from above", "today", "at home",
)  # fmt: skip
_NOTHING = "something"


class Region(NamedTuple):
    """An object or a region of stuff: its class name, its color, (name, color) of its parts."""

    name: str
    color: str
    parts: tuple[tuple[str, str], ...] = ()


class CaptionedImage(NamedTuple):
    """An image (48, 48, 3) uint8 with its caption and the class names of what is visible."""

    pixels: NDArray[np.uint8]
    caption: str
    names: tuple[str, ...]


def make_captioned_image(seed: int, index: int) -> CaptionedImage:
    """Draw the image of a seed and an index: one or two kinds of stuff, at most two objects."""
    rng = np.random.default_rng((seed, index))
    size = (IMAGE_SIDE, IMAGE_SIDE)
    painting = Painting(size)
    stuff = rng.choice(STUFF_NAMES, size=1 + (rng.random() < 0.5), replace=False).tolist()
    painting.paint_stuff(stuff[0], draw_stuff(rng, stuff[0], size), np.ones(size, np.float32))
    for name in stuff[1:]:
        painting.paint_stuff(name, draw_stuff(rng, name, size), cut_in_two(rng, size))
    for name in rng.choice(THING_NAMES, size=rng.choice(3, p=(0.15, 0.55, 0.3))).tolist():
        x, y = rng.uniform(12, IMAGE_SIDE - 12, size=2)
        painting.paint_object(rng, name, (x, y), rng.uniform(*_EXTENT))
    visible = [layer for layer in painting.layers if layer.mask.sum() >= _MIN_AREA]
    caption = make_caption(
        rng,
        [_region(painting, layer) for layer in visible if layer.parts],
        [_region(painting, layer) for layer in visible if not layer.parts],
    )
    return CaptionedImage(painting.finish(rng), caption, tuple(layer.name for layer in visible))


def cut_in_two(rng: np.random.Generator, size: Size) -> NDArray[np.float32]:
    """Coverage (H, W) of one side of a wavy line, most often of a horizon's lower side."""
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    angle = rng.normal(0, 0.25) if rng.random() < 0.7 else rng.uniform(0, 2 * np.pi)
    middle = rng.uniform(0.3, 0.7)
    height = (rows / size[0] - middle) * np.cos(angle) + (columns / size[1] - 0.5) * np.sin(angle)
    wave = rng.uniform(0, 0.15) * (smooth_noise(rng, size, *(side / 4 for side in size)) - 0.5)
    return (height + wave > 0).astype(np.float32)


def _region(painting: Painting, layer: Layer) -> Region:
    def color(mask: Mask) -> str:
        return name_color(painting.pixels[mask].mean(axis=0).clip(0, 1).tolist())

    visible = [(name, mask) for name, mask in layer.parts.items() if mask.sum() >= _MIN_AREA]
    parts = tuple((name, color(mask)) for name, mask in visible)
    return Region(layer.name, color(layer.mask), parts)


def name_color(rgb: Sequence[float]) -> str:
    """The word for an RGB color of values in 0..1.

    >>> name_color((0.9, 0.1, 0.1)), name_color((0.95, 0.95, 1.0)), name_color((0.4, 0.25, 0.1))
    ('red', 'white', 'brown')
    """
    hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
    if value < 0.2:
        return "black"
    if saturation < 0.2:
        return _GRAYS[1] if value < 0.7 else _GRAYS[2]
    name = next(name for end, name in _HUES if hue <= end)
    return "brown" if name in ("red", "orange") and value < 0.5 else name


def make_caption(
    rng: np.random.Generator, objects: Sequence[Region], stuff: Sequence[Region]
) -> str:
    """Write a caption that mentions some of the visible objects and stuff, in random words."""
    objects = [region for region in objects if rng.random() < MENTIONS_OBJECT]
    stuff = [region for region in stuff if rng.random() < MENTIONS_STUFF]
    joiner = f" {_choose(rng, _JOINERS)} "
    subject = joiner.join(_describe_object(rng, region) for region in objects)
    place = " and ".join(_describe_stuff(rng, region) for region in stuff)
    if subject and place:
        subject = f"{subject} {_choose(rng, _PLACES)} {place}"
    words = [_choose(rng, _OPENINGS), subject or place or _NOTHING, _choose(rng, _ENDINGS)]
    return " ".join(" ".join(words).split())


def all_caption_words() -> tuple[str, ...]:
    """Every word of the captions except for the names of classes, parts and colors."""
    pieces = (*_OPENINGS, *_ARTICLES, *_ADJECTIVES, *_JOINERS, *_PLACES, *_ENDINGS, _NOTHING)
    return tuple(sorted({word for piece in pieces for word in piece.split()}))


def _describe_object(rng: np.random.Generator, region: Region) -> str:
    adjective = _choose(rng, _ADJECTIVES)
    words = [_choose(rng, _ARTICLES), adjective, _maybe(rng, region.color), region.name]
    if region.parts and rng.random() < MENTIONS_PART:
        name, color = region.parts[int(rng.integers(len(region.parts)))]
        words += ["with", _choose(rng, _ARTICLES), _maybe(rng, color), name]
    return " ".join(words)


def _describe_stuff(rng: np.random.Generator, region: Region) -> str:
    article = "the" if rng.random() < 0.4 else ""
    return " ".join((article, _maybe(rng, region.color), region.name))


def _maybe(rng: np.random.Generator, color: str) -> str:
    return color if rng.random() < MENTIONS_COLOR else ""


def _choose(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]
