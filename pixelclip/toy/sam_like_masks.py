"""Masks without names, as a segmenter of everything makes them: wholes, parts, pieces, mistakes."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pixelclip.toy.painting import Layer, Mask
from pixelclip.toy.scenes import Scene

# Smaller ones are not found.
_SMALLEST_AREA = 12

# Chances that a thing, a part, a piece of stuff is found.
_FINDS_THING = 0.85
_FINDS_PART = 0.6
_FINDS_STUFF = 0.9


def make_masks(seed: int, index: int, scene: Scene) -> list[Mask]:
    """Segment a scene as SAM would.

    Things are found whole and in parts, which overlap; stuff falls into connected pieces, some of
    them cut further; borders are a pixel off here and there; some masks are missing and a few
    hold two neighbours.

    Returns:
        (H, W) bool masks.
    """
    rng = np.random.default_rng((seed, index, 1))
    masks: list[Mask] = []
    for layer in scene.layers:
        masks += _thing_masks(rng, layer) if layer.parts else _stuff_masks(rng, layer)
    if len(masks) > 1 and rng.random() < 0.3:
        first, second = rng.choice(len(masks), size=2, replace=False)
        masks.append(masks[first] | masks[second])
    moved = [_move_border(rng, mask) for mask in masks]
    return [mask for mask in moved if mask.sum() >= _SMALLEST_AREA]


def _thing_masks(rng: np.random.Generator, layer: Layer) -> list[Mask]:
    masks = [layer.mask] if rng.random() < _FINDS_THING else []
    return masks + [part for part in layer.parts if rng.random() < _FINDS_PART]


def _stuff_masks(rng: np.random.Generator, layer: Layer) -> list[Mask]:
    pieces: list[Mask] = []
    for piece in _connected_pieces(layer.mask):
        pieces += _cut(rng, piece) if rng.random() < 0.4 else [piece]
    return [piece for piece in pieces if rng.random() < _FINDS_STUFF]


def _connected_pieces(mask: Mask) -> list[Mask]:
    labels, count = ndimage.label(mask)
    return [labels == number for number in range(1, count + 1)]


def _cut(rng: np.random.Generator, mask: Mask) -> list[Mask]:
    """Divide a mask among the nearest of two or three points in it."""
    pixels = np.argwhere(mask)
    count = min(len(pixels), int(rng.integers(2, 4)))
    centres = pixels[rng.choice(len(pixels), size=count, replace=False)]
    squared = ((pixels[:, None] - centres[None]) ** 2).sum(-1)  # (pixels, centres)
    nearest: NDArray[np.int64] = np.full(mask.shape, -1)
    nearest[mask] = squared.argmin(axis=1)
    return [nearest == number for number in range(len(centres))]


def _move_border(rng: np.random.Generator, mask: Mask) -> Mask:
    chance = rng.random()
    if chance < 0.2:
        return ndimage.binary_dilation(mask)
    if chance < 0.4:
        return ndimage.binary_erosion(mask)
    return mask
