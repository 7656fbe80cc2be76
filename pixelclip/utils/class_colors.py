"""Colors of classes that follow from their names, for people with and without color blindness."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# RGB of what has a color that people expect, each with other words for it.
_NATURAL_COLORS = {
    "background": (236, 236, 232),
    "sky clouds cloud": (126, 184, 232),
    "water sea ocean river lake": (38, 98, 170),
    "snow ice": (178, 220, 226),
    "grass lawn field terrain": (140, 186, 62),
    "tree trees vegetation forest bush plant plants": (24, 98, 68),
    "sand beach desert": (228, 206, 134),
    "road street asphalt runway": (96, 96, 110),
    "sidewalk pavement path": (138, 114, 166),
    "stone rock mountain": (140, 142, 138),
    "wood earth ground dirt soil": (128, 88, 36),
    "brick": (212, 100, 84),
    "building house": (202, 152, 114),
    "wall ceiling": (208, 190, 172),
    "person people man woman": (232, 124, 172),
    "car cars vehicle": (150, 44, 128),
}
_COLOR_OF_WORD = {
    word: index for index, words in enumerate(_NATURAL_COLORS) for word in words.split()
}
# All other colors have a medium lightness and a moderate chroma (CIELAB).
_LIGHTNESS, _CHROMA = (30, 84), (12, 60)
# What each vision keeps of linear RGB: all, or what is left without the red or the green cones
# (Machado, Oliveira and Fernandes 2009, full severity).
_VISIONS = np.array([
    np.eye(3),
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
     [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
     [-0.011820, 0.042940, 0.968881]],
])  # fmt: skip
# Distances in CIELAB, to every vision, which are kept as long as there is room: between K classes
# the smaller of 15 and 142 / K ** 0.75, so that many classes do not push each other far away; and
# from the natural colors for a class that has none.
_SMALLEST_DISTANCE, _ROOM, _FROM_NATURAL = 15.0, 142.0, 9.0
_NUM_COLORS = 1024


class _Palette(NamedTuple):
    """Colors to choose from.

    Attributes:
        colors: (N, 3) uint8 RGB, those of ``_NATURAL_COLORS`` first.
        looks: (3, N, 3) in CIELAB, as each vision sees them.
        free: indices of the colors that resemble no natural one.
    """

    colors: NDArray[np.uint8]
    looks: NDArray[np.float64]
    free: NDArray[np.int64]


def class_colors(names: Sequence[str]) -> NDArray[np.uint8]:
    """Colors (K, 3) of K classes; up to 1024 classes have different ones.

    The first synonym of a class decides: "sky" and "cloudy sky" are light blue, "kite" has a
    color computed from its letters. A class whose color is too close to that of another takes the
    nearest one that is not. The order of the names has no influence.

    Args:
        names: of the classes, synonyms separated by commas.

    >>> class_colors(["kite", "sky, clouds"])[1].tolist()
    [126, 184, 232]
    """
    return _assign_colors(tuple(names)).copy()


@functools.lru_cache(maxsize=16)
def _assign_colors(names: tuple[str, ...]) -> NDArray[np.uint8]:
    palette = _make_palette()
    spacing = min(_SMALLEST_DISTANCE, _ROOM / max(1, len(names)) ** 0.75)
    wanted = [_find_wanted_color(name) for name in names]
    order = sorted(
        range(len(names)),  # natural colors first, of them "sky" before "cloudy sky"
        key=lambda index: (wanted[index] >= len(_NATURAL_COLORS), len(names[index]), names[index]),
    )
    chosen = np.zeros(len(names), np.int64)
    for count, index in enumerate(order):
        if count % _NUM_COLORS == 0:
            nearest = np.full(len(palette.colors), np.inf)  # distance to a color in use
        change = np.linalg.norm(palette.looks[0] - palette.looks[0, wanted[index]], axis=-1)
        change[nearest < min(spacing, nearest.max())] = np.inf
        chosen[index] = change.argmin()
        gaps = palette.looks - palette.looks[:, chosen[index], None]  # (3, N, 3)
        nearest = np.minimum(nearest, np.linalg.norm(gaps, axis=-1).min(axis=0))
        nearest[chosen[index]] = -1
    return palette.colors[chosen]


def _find_wanted_color(name: str) -> int:
    """Index of the color that a class has where no other class is near it."""
    first = name.split(",")[0].strip().lower()
    for word in reversed(re.findall(r"\w+", first)):  # "cloudy sky" and "sky-other" are skies
        if word in _COLOR_OF_WORD:
            return _COLOR_OF_WORD[word]
    free = _make_palette().free
    digest = hashlib.sha256(first.encode()).digest()  # the same in every process
    return int(free[int.from_bytes(digest[:8], "big") % len(free)])


@functools.cache
def _make_palette() -> _Palette:
    from skimage.color import rgb2lab

    levels = np.arange(0, 256, 15)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)  # (5832, 3)
    lightness, a, b = rgb2lab(grid / 255).T
    is_moderate = np.ones(len(grid), bool)
    for values, (low, high) in ((lightness, _LIGHTNESS), (np.hypot(a, b), _CHROMA)):
        is_moderate &= (low < values) & (values < high)
    colors = np.concatenate([[*_NATURAL_COLORS.values()], grid[is_moderate]]).astype(np.uint8)
    seen = np.clip((colors / 255) ** 2.2 @ _VISIONS.transpose(0, 2, 1), 0, 1) ** (1 / 2.2)
    looks = rgb2lab(seen)
    gaps = looks[:, :, None] - looks[:, None, : len(_NATURAL_COLORS)]
    is_free = np.linalg.norm(gaps, axis=-1).min(axis=(0, 2)) > _FROM_NATURAL
    return _Palette(colors, looks, np.flatnonzero(is_free))
