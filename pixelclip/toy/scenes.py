"""Scenes of several objects on stuff: the class of every pixel, and masks such as SAM's."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pixelclip.toy.captioned_images import cut_in_two
from pixelclip.toy.objects import THING_NAMES
from pixelclip.toy.painting import Layer, Mask, Painting
from pixelclip.toy.textures import STUFF_NAMES, draw_stuff

# The vocabulary "toy_scenes_20"; the index is the value in the label maps.
CLASS_NAMES: tuple[str, ...] = STUFF_NAMES + THING_NAMES

# Side of a scene in pixels.
SCENE_SIDE = 96

# Length of an object's longer side in pixels: as in the captioned images.
_EXTENT = (22, 46)

# Masks of fewer pixels are not found.
_MIN_AREA = 12

# Chance that an object, a part, a piece of stuff is found.
_FINDS_OBJECT, _FINDS_PART, _FINDS_STUFF = 0.85, 0.6, 0.9


class Scene(NamedTuple):
    """Pixels (96, 96, 3) uint8 RGB; labels (96, 96) uint8, indices of ``CLASS_NAMES``; layers.

    The layers are what was painted, from back to front.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    layers: list[Layer]


def make_scene(seed: int, index: int) -> Scene:
    """Draw the scene of a seed and an index: two to four kinds of stuff, one to five objects."""
    rng = np.random.default_rng((seed, index))
    size = (SCENE_SIDE, SCENE_SIDE)
    painting = Painting(size)
    coverage = np.ones(size, np.float32)
    for name in rng.choice(STUFF_NAMES, size=rng.integers(2, 5), replace=False).tolist():
        painting.paint_stuff(name, draw_stuff(rng, name, size), coverage)
        coverage = cut_in_two(rng, size)
    for name in rng.choice(THING_NAMES, size=rng.integers(1, 6)):
        x, y = rng.uniform(12, SCENE_SIDE - 12, size=2)
        painting.paint_object(rng, str(name), (x, y), rng.uniform(*_EXTENT))
    labels = np.zeros(size, np.uint8)
    for layer in painting.layers:
        labels[layer.mask] = CLASS_NAMES.index(layer.name)
    return Scene(painting.finish(rng), labels, painting.layers)


def make_masks(seed: int, index: int, scene: Scene) -> list[Mask]:
    """Segment a scene into masks (H, W) without names, as SAM would.

    Objects are found whole and in parts, which overlap; stuff falls into connected pieces, some of
    them cut further; some borders are one pixel off; some masks are missing and a few hold two
    neighbors.
    """
    rng = np.random.default_rng((seed, index, 1))
    masks: list[Mask] = []
    for layer in scene.layers:
        masks += _object_masks(rng, layer) if layer.parts else _stuff_masks(rng, layer)
    if len(masks) > 1 and rng.random() < 0.3:
        first, second = rng.choice(len(masks), size=2, replace=False)
        masks.append(masks[first] | masks[second])
    moved = [_move_border(rng, mask) for mask in masks]
    return [mask for mask in moved if mask.sum() >= _MIN_AREA]


def _object_masks(rng: np.random.Generator, layer: Layer) -> list[Mask]:
    masks = [layer.mask] if rng.random() < _FINDS_OBJECT else []
    return masks + [part for part in layer.parts.values() if rng.random() < _FINDS_PART]


def _stuff_masks(rng: np.random.Generator, layer: Layer) -> list[Mask]:
    components, count = ndimage.label(layer.mask)
    pieces: list[Mask] = []
    for piece in (components == number for number in range(1, count + 1)):
        pieces += _cut(rng, piece) if rng.random() < 0.4 else [piece]
    return [piece for piece in pieces if rng.random() < _FINDS_STUFF]


def _cut(rng: np.random.Generator, mask: Mask) -> list[Mask]:
    """Divide a mask among the nearest of two or three points in it."""
    pixels = np.argwhere(mask)
    count = min(len(pixels), int(rng.integers(2, 4)))
    centers = pixels[rng.choice(len(pixels), size=count, replace=False)]
    squared = ((pixels[:, None] - centers[None]) ** 2).sum(-1)  # (pixels, centers)
    nearest: NDArray[np.int64] = np.full(mask.shape, -1)
    nearest[mask] = squared.argmin(axis=1)
    return [nearest == number for number in range(len(centers))]


def _move_border(rng: np.random.Generator, mask: Mask) -> Mask:
    chance = rng.random()
    if chance < 0.2:
        return ndimage.binary_dilation(mask)
    return ndimage.binary_erosion(mask) if chance < 0.4 else mask
