"""Scenes of several things on several kinds of stuff, with the class of every pixel."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelclip.toy.painting import Layer, Painting
from pixelclip.toy.textures import STUFF_NAMES, Size, draw_stuff
from pixelclip.toy.things import THING_NAMES
from pixelclip.toy.web_pictures import cut_in_two

# The vocabulary of the scenes; the index is the value in the label maps.
CLASS_NAMES: tuple[str, ...] = STUFF_NAMES + THING_NAMES

# Side of a scene in pixels.
SCENE_SIDE = 96

# Length of a thing's longer side in pixels: as in the web pictures.
_EXTENT = (22, 46)


class Scene(NamedTuple):
    """A scene.

    Attributes:
        pixels: (96, 96, 3) uint8 RGB.
        labels: (96, 96) uint8, indices of ``CLASS_NAMES``.
        layers: what was painted, from the back to the front.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    layers: list[Layer]


def make_scene(seed: int, index: int) -> Scene:
    """Draw the scene of a number: two to four kinds of stuff and one to five things."""
    rng = np.random.default_rng((seed, index))
    size = (SCENE_SIDE, SCENE_SIDE)
    painting = Painting(size)
    _paint_ground(rng, painting, size)
    for name in rng.choice(THING_NAMES, size=rng.integers(1, 6)):
        x, y = rng.uniform(12, SCENE_SIDE - 12, size=2)
        painting.paint_thing(rng, str(name), (x, y), rng.uniform(*_EXTENT))
    labels = np.zeros(size, np.uint8)
    for layer in painting.layers:
        labels[layer.mask] = CLASS_NAMES.index(layer.name)
    return Scene(painting.finish(rng), labels, painting.layers)


def _paint_ground(rng: np.random.Generator, painting: Painting, size: Size) -> None:
    names = rng.choice(STUFF_NAMES, size=rng.integers(2, 5), replace=False).tolist()
    coverage = np.ones(size, np.float32)
    for name in names:
        painting.paint_stuff(name, draw_stuff(rng, name, size), coverage)
        coverage = cut_in_two(rng, size)
