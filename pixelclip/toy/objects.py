"""Shapes of the drawn objects, the benchmark's thing classes: named parts made of polygons.

An object lies in the square from -0.5 to 0.5, x to the right and y down, and is drawn part by part,
in order. Its proportions are random.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# (n, 2) corners x, y
Polygon = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """A part of an object: polygons (n, 2), with its typical color and pattern.

    The color is (hue, saturation, brightness), each in 0..1; the pattern one of
    ``painting.PATTERNS``.
    """

    name: str
    polygons: tuple[Polygon, ...]
    color: tuple[float, float, float]
    pattern: str = "plain"


Shape = list[Part]


def _polygon(*corners: tuple[float, float]) -> Polygon:
    return np.array(corners, dtype=np.float64)


def _rectangle(left: float, top: float, right: float, bottom: float) -> Polygon:
    return _polygon((left, top), (right, top), (right, bottom), (left, bottom))


def _ellipse(
    x: float, y: float, width: float, height: float, start: float = 0.0, stop: float = 1.0
) -> Polygon:
    """Ellipse around (x, y), or the arc of it between two fractions of a clockwise turn."""
    angles = 2 * np.pi * np.linspace(start, stop, 25)
    return np.stack([x + width / 2 * np.cos(angles), y + height / 2 * np.sin(angles)], axis=1)


def _rotate(polygon: Polygon, angle: float) -> Polygon:
    """Rotate a polygon clockwise about the origin by an angle in radians."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return polygon @ np.array([[cosine, sine], [-sine, cosine]])


def _house(rng: np.random.Generator) -> Shape:
    eaves, half, ridge = rng.uniform(-0.15, 0.05), rng.uniform(0.33, 0.44), rng.uniform(0, 0.3)
    roof = _polygon((-0.5, eaves), (-ridge, -0.48), (ridge, -0.48), (0.5, eaves))
    door = rng.uniform(-0.25, 0.1)
    windows = [
        _rectangle(x, eaves + 0.1, x + 0.14, eaves + 0.26) for x in (-half + 0.06, half - 0.2)
    ]
    parts = [
        Part("wall", (_rectangle(-half, eaves, half, 0.5),), (0.1, 0.3, 0.9), "bricks"),
        Part("roof", (roof,), (0.02, 0.75, 0.6), "stripes"),
        Part("door", (_rectangle(door, 0.14, door + 0.17, 0.5),), (0.07, 0.6, 0.35)),
        Part("window", tuple(windows[: rng.integers(1, 3)]), (0.55, 0.4, 0.85)),
    ]
    if rng.random() < 0.5:
        left = rng.uniform(0.15, 0.28)
        chimney = _rectangle(left, -0.5, left + 0.11, 0)
        parts.insert(0, Part("chimney", (chimney,), (0.02, 0.6, 0.45)))
    return parts


def _tree(rng: np.random.Generator) -> Shape:
    thickness = rng.uniform(0.05, 0.09)
    trunk = Part("trunk", (_rectangle(-thickness, 0, thickness, 0.5),), (0.07, 0.6, 0.35), "grain")
    if rng.random() < 0.5:
        tops = np.linspace(-0.5, -0.05, rng.integers(2, 5))
        needles = tuple(
            _polygon((-0.2 - 0.3 * (t + 0.5), t + 0.32), (0, t), (0.2 + 0.3 * (t + 0.5), t + 0.32))
            for t in tops
        )
        return [trunk, Part("needles", needles, (0.36, 0.7, 0.4), "speckles")]
    blobs = [_ellipse(0, -0.18, 0.62, 0.5)]
    for _ in range(rng.integers(3, 6)):
        x, y, size = rng.uniform(-0.25, 0.25), rng.uniform(-0.3, 0), rng.uniform(0.28, 0.45)
        blobs.append(_ellipse(x, y, size, size))
    return [trunk, Part("leaves", tuple(blobs), (0.3, 0.75, 0.5), "speckles")]


def _car(rng: np.random.Generator) -> Shape:
    roof, hood = rng.uniform(-0.32, -0.22), rng.uniform(0.2, 0.34)
    front, back = rng.uniform(0.05, 0.16), rng.uniform(-0.4, -0.28)
    cabin = _polygon((-0.44, -0.04), (back, roof), (front, roof), (hood, -0.04))
    glass = _polygon(
        (-0.36, -0.04), (back + 0.04, roof + 0.05), (front - 0.03, roof + 0.05),
        (hood - 0.09, -0.04),
    )  # fmt: skip
    body = _polygon((-0.5, -0.02), (0.42, -0.06), (0.5, 0.02), (0.5, 0.2), (-0.5, 0.2))
    wheels, hubs = (
        tuple(_ellipse(x, 0.2, size, size) for x in (-0.28, 0.27)) for size in (0.24, 0.1)
    )
    return [
        Part("cabin", (cabin,), (0.0, 0.85, 0.75)),
        Part("window", (glass,), (0.55, 0.3, 0.8)),
        Part("body", (body,), (0.0, 0.85, 0.85)),
        Part("wheel", wheels, (0.6, 0.1, 0.12)),
        Part("hub", hubs, (0.6, 0.05, 0.75)),
    ]


def _fish(rng: np.random.Generator) -> Shape:
    height, half = rng.uniform(0.3, 0.48), rng.uniform(0.13, 0.22)
    tail = _polygon((-0.2, 0), (-0.5, -half), (-0.42, 0), (-0.5, half))
    top = -height / 2
    fin = _polygon((-0.1, top + 0.06), (0.08, top - 0.13), (0.2, top + 0.08))
    return [
        Part("tail", (tail,), (0.04, 0.85, 0.8)),
        Part("fin", (fin,), (0.04, 0.85, 0.8)),
        Part("body", (_ellipse(0.1, 0, 0.78, height),), (0.07, 0.85, 0.95), "stripes"),
        Part("eye", (_ellipse(0.34, -0.05, 0.08, 0.08),), (0.6, 0.1, 0.1)),
    ]


def _boat(rng: np.random.Generator) -> Shape:
    mast, deck = rng.uniform(-0.1, 0.08), rng.uniform(0.18, 0.26)
    foot = deck - 0.06
    sails = [_polygon((mast + 0.03, -0.44), (0.42, foot), (mast + 0.03, foot))]
    if rng.random() < 0.6:
        sails.append(_polygon((mast - 0.03, -0.36), (-0.38, foot), (mast - 0.03, foot)))
    hull = _polygon((-0.5, deck), (0.5, deck), (0.34, 0.48), (-0.36, 0.48))
    return [
        Part("mast", (_rectangle(mast - 0.02, -0.5, mast + 0.02, deck),), (0.08, 0.5, 0.3)),
        Part("sail", tuple(sails), (0.15, 0.08, 0.97)),
        Part("hull", (hull,), (0.64, 0.7, 0.55), "stripes"),
    ]


def _bottle(rng: np.random.Generator) -> Shape:
    half, shoulder = rng.uniform(0.15, 0.22), rng.uniform(-0.15, 0.0)
    body = _polygon(
        (-half, 0.5), (-half, shoulder), (-0.07, shoulder - 0.16), (0.07, shoulder - 0.16),
        (half, shoulder), (half, 0.5),
    )  # fmt: skip
    label = _rectangle(-half, 0.1, half, rng.uniform(0.28, 0.4))
    return [
        Part("glass", (body,), (0.4, 0.8, 0.5)),
        Part("neck", (_rectangle(-0.065, -0.44, 0.065, shoulder - 0.14),), (0.4, 0.8, 0.5)),
        Part("cap", (_rectangle(-0.08, -0.5, 0.08, -0.4),), (0.0, 0.8, 0.7)),
        Part("label", (label,), (0.13, 0.15, 0.95), "stripes"),
    ]


def _mushroom(rng: np.random.Generator) -> Shape:
    edge, width = rng.uniform(-0.02, 0.1), rng.uniform(0.8, 1.0)
    half = rng.uniform(0.09, 0.15)
    stem = _polygon((-half, edge), (half, edge), (half + 0.05, 0.5), (-half - 0.05, 0.5))
    dots = [
        _ellipse(x * width, edge - y, 0.12, 0.1)
        for x, y in ((-0.25, 0.14), (0.02, 0.32), (0.27, 0.12), (-0.03, 0.1))
    ]
    return [
        Part("stem", (stem,), (0.12, 0.12, 0.93)),
        Part("cap", (_ellipse(0, edge, width, 1.0, 0.5, 1.0),), (0.99, 0.85, 0.8)),
        Part("dot", tuple(dots[: rng.integers(2, 5)]), (0.1, 0.03, 0.97)),
    ]


def _ladder(rng: np.random.Generator) -> Shape:
    top, bottom = rng.uniform(0.12, 0.2), rng.uniform(0.2, 0.28)
    half = rng.uniform(0.03, 0.045)
    rails = tuple(
        _polygon(
            (side * top - half, -0.5), (side * top + half, -0.5),
            (side * bottom + half, 0.5), (side * bottom - half, 0.5),
        )
        for side in (-1, 1)
    )  # fmt: skip
    heights = np.linspace(-0.4, 0.38, rng.integers(4, 7))
    rungs = tuple(_rectangle(-bottom, y - half, bottom, y + half) for y in heights)
    return [Part("rung", rungs, (0.13, 0.75, 0.75)), Part("rail", rails, (0.13, 0.8, 0.9))]


def _flower(rng: np.random.Generator) -> Shape:
    count, length = int(rng.integers(5, 9)), rng.uniform(0.2, 0.26)
    petal = _ellipse(length * 0.62, 0, length * 1.2, rng.uniform(0.13, 0.2))
    petals = [_rotate(petal, 2 * np.pi * i / count) + (0, -0.2) for i in range(count)]
    leaf = _rotate(_ellipse(0.13, 0, 0.26, 0.11), rng.uniform(-0.8, -0.3)) + (0, 0.32)
    return [
        Part("stalk", (_rectangle(-0.025, -0.2, 0.025, 0.5),), (0.33, 0.7, 0.45)),
        Part("leaf", (leaf,), (0.33, 0.75, 0.5)),
        Part("petal", tuple(petals), (0.9, 0.6, 0.95)),
        Part("centre", (_ellipse(0, -0.2, 0.17, 0.17),), (0.14, 0.85, 0.95), "speckles"),
    ]


def _lamp(rng: np.random.Generator) -> Shape:
    half, top = rng.uniform(0.24, 0.34), rng.uniform(0.1, 0.18)
    edge = rng.uniform(-0.18, -0.05)
    shade = _polygon((-half, edge), (-top, -0.5), (top, -0.5), (half, edge))
    return [
        Part("pole", (_rectangle(-0.03, edge, 0.03, 0.45),), (0.6, 0.1, 0.25)),
        Part("foot", (_ellipse(0, 0.45, rng.uniform(0.3, 0.44), 0.1),), (0.6, 0.1, 0.2)),
        Part("shade", (shade,), (0.15, 0.4, 0.98)),
    ]


def _cup(rng: np.random.Generator) -> Shape:
    top, bottom, height = rng.uniform(0.26, 0.34), rng.uniform(0.18, 0.26), rng.uniform(0.3, 0.4)
    outside = _ellipse(0.28, 0, 0.42, 0.46, -0.25, 0.25)
    inside = _ellipse(0.28, 0, 0.26, 0.28, -0.25, 0.25)
    wall = _polygon(
        (-top - 0.1, -height), (top - 0.1, -height), (bottom - 0.1, height), (-bottom - 0.1, height)
    )
    return [
        Part("handle", (np.concatenate([outside, inside[::-1]]),), (0.5, 0.7, 0.65)),
        Part("wall", (wall,), (0.5, 0.7, 0.75), "stripes"),
        Part("rim", (_ellipse(-0.1, -height, 2 * top, 0.13),), (0.06, 0.6, 0.25)),
    ]


def _bird(rng: np.random.Generator) -> Shape:
    height = rng.uniform(0.28, 0.38)
    legs = tuple(_rectangle(x - 0.015, 0.1, x + 0.015, 0.48) for x in (-0.05, 0.07))
    wing = _rotate(_ellipse(0, 0, 0.4, 0.17), rng.uniform(-0.5, 0.2)) + (-0.06, -0.02)
    return [
        Part("leg", legs, (0.1, 0.8, 0.7)),
        Part("tail", (_polygon((-0.2, -0.02), (-0.5, -0.14), (-0.48, 0.06)),), (0.72, 0.55, 0.4)),
        Part("body", (_ellipse(0, 0, 0.56, height),), (0.72, 0.55, 0.6)),
        Part("beak", (_polygon((0.38, -0.24), (0.5, -0.18), (0.38, -0.14)),), (0.1, 0.9, 0.9)),
        Part("head", (_ellipse(0.28, -0.19, 0.25, 0.25),), (0.72, 0.55, 0.65)),
        Part("wing", (wing,), (0.72, 0.6, 0.35), "stripes"),
        Part("eye", (_ellipse(0.31, -0.21, 0.05, 0.05),), (0.0, 0.0, 0.05)),
    ]


_SHAPES: dict[str, Callable[[np.random.Generator], Shape]] = {
    "house": _house, "tree": _tree, "car": _car, "fish": _fish, "boat": _boat, "bottle": _bottle,
    "mushroom": _mushroom, "ladder": _ladder, "flower": _flower, "lamp": _lamp, "cup": _cup,
    "bird": _bird,
}  # fmt: skip

THING_NAMES: tuple[str, ...] = tuple(_SHAPES)

# The words for the parts.
PART_NAMES: tuple[str, ...] = (
    "wall", "roof", "door", "window", "chimney", "trunk", "needles", "leaves", "cabin", "body",
    "wheel", "hub", "tail", "fin", "eye", "mast", "sail", "hull", "glass", "neck", "cap", "label",
    "stem", "dot", "rung", "rail", "stalk", "leaf", "petal", "centre", "pole", "foot", "shade",
    "handle", "rim", "leg", "beak", "head", "wing",
)  # fmt: skip


def make_shape(rng: np.random.Generator, name: str) -> Shape:
    """Make the parts of an object of random proportions; its name is one of ``THING_NAMES``."""
    return _SHAPES[name](rng)
