"""Words for colours."""

import colorsys
from collections.abc import Sequence

# Upper end of each hue, as a fraction of a turn, and its word.
_HUES = (
    (0.03, "red"),
    (0.11, "orange"),
    (0.19, "yellow"),
    (0.43, "green"),
    (0.54, "turquoise"),
    (0.70, "blue"),
    (0.82, "purple"),
    (0.94, "pink"),
    (1.0, "red"),
)
_GREYS = ("black", "grey", "white")

COLOUR_NAMES: tuple[str, ...] = tuple(dict.fromkeys([*(n for _, n in _HUES), "brown", *_GREYS]))


def name_colour(rgb: Sequence[float]) -> str:
    """The word for an RGB colour of values in 0..1.

    >>> name_colour((0.9, 0.1, 0.1)), name_colour((0.95, 0.95, 1.0)), name_colour((0.4, 0.25, 0.1))
    ('red', 'white', 'brown')
    """
    hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
    if value < 0.2:
        return "black"
    if saturation < 0.2:
        return _GREYS[1] if value < 0.7 else _GREYS[2]
    name = next(name for end, name in _HUES if hue <= end)
    return "brown" if name in ("red", "orange") and value < 0.5 else name
