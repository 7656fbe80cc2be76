"""A label map laid over its image, with a legend below, at the image's full size."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pixelclip.utils.visualization import Picture, class_colours, colour_labels, overlay

_MIN_FONT_SIZE = 12
# A legend of 30 lines is as high as the picture's longer side at most.
_LINES_PER_SIDE = 40
_MIN_WIDTH = 160
_TEXT_COLOUR = (30, 30, 30)


# So many colours can still be told apart by a computer.
_MOST_COLOURS = 1024


class LegendEntry(NamedTuple):
    """One class of a legend; without a colour its sample is an empty frame."""

    text: str
    colour: tuple[int, int, int] | None


def vocabulary_colours(count: int) -> NDArray[np.uint8]:
    """Colours (count, 3) of the names of a vocabulary; beyond 1024 names they begin again."""
    return class_colours(min(count, _MOST_COLOURS))[np.arange(count) % _MOST_COLOURS]


def overlay_labels(
    picture: Picture,
    labels: NDArray[np.integer],
    colours: NDArray[np.uint8],
    opacity: float = 0.6,
    clear_class: int | None = None,
) -> Picture:
    """Lay the colours of a label map (H, W) over a picture (H, W, 3), with dark borders.

    Args:
        picture: RGB, of the labels' size.
        labels: class indices.
        colours: (C, 3) uint8, such as :func:`pixelclip.utils.visualization.class_colours` gives.
        opacity: 0 shows the picture alone, 1 the colours alone.
        clear_class: whose pixels show the picture alone.

    Raises:
        ValueError: an opacity outside 0..1.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity is {opacity}; it must lie between 0 and 1.")
    shown = overlay(picture, colour_labels(labels, colours), opacity)
    if opacity > 0:
        shown[_borders(labels)] //= 2
    if clear_class is not None:
        is_clear = labels == clear_class
        shown[is_clear] = picture[is_clear]
    return shown


def _borders(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Pixels (H, W) whose right or lower neighbour is of another class."""
    is_border = np.zeros(labels.shape, bool)
    is_border[:, :-1] = labels[:, :-1] != labels[:, 1:]
    is_border[:-1] |= labels[:-1] != labels[1:]
    return is_border


def add_legend(picture: Picture, entries: Sequence[LegendEntry]) -> Picture:
    """Put a legend below a picture (H, W, 3), in as many lines as its width asks for.

    A picture narrower than 160 pixels gets a white margin at its right. What is too long for a
    line ends in three dots.
    """
    height, width = picture.shape[0], max(picture.shape[1], _MIN_WIDTH)
    size = max(_MIN_FONT_SIZE, max(picture.shape[:2]) // _LINES_PER_SIDE)
    font = _font(size)
    lines = _break_lines(entries, width, font)
    line_height = round(1.5 * size)
    canvas = Image.new("RGB", (width, height + len(lines) * line_height + size // 2), "white")
    canvas.paste(Image.fromarray(picture))
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        x, y = size // 2, height + size // 2 + number * line_height
        for entry in line:
            _draw_entry(draw, (x, y), entry, font)
            x += _entry_width(entry, font)
    return np.asarray(canvas)


def _break_lines(
    entries: Sequence[LegendEntry], width: int, font: ImageFont.FreeTypeFont
) -> list[list[LegendEntry]]:
    room = width - int(font.size)
    lines: list[list[LegendEntry]] = []
    left = 0.0
    for entry in entries:
        fitting = _shorten(entry, room, font)
        needed = _entry_width(fitting, font)
        if not lines or needed > left:
            lines.append([])
            left = room
        lines[-1].append(fitting)
        left -= needed
    return lines


def _shorten(entry: LegendEntry, room: int, font: ImageFont.FreeTypeFont) -> LegendEntry:
    text = entry.text
    while _entry_width(entry, font) > room and len(text) > 1:
        text = text[:-1]
        entry = entry._replace(text=f"{text}...")
    return entry


def _entry_width(entry: LegendEntry, font: ImageFont.FreeTypeFont) -> int:
    """Width in pixels of the sample, the text and the gap behind it."""
    return round(font.getlength(entry.text) + 2.2 * font.size)


def _draw_entry(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    entry: LegendEntry,
    font: ImageFont.FreeTypeFont,
) -> None:
    x, y = corner
    side = int(font.size)
    draw.rectangle((x, y, x + side, y + side), fill=entry.colour, outline=(110, 110, 110))
    # "ls": the text's left end, on its base line.
    draw.text((x + 1.4 * side, y + 0.85 * side), entry.text, _TEXT_COLOUR, font, anchor="ls")


@functools.lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Matplotlib brings a font with Latin, Greek, Cyrillic and Arabic letters.
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(str(path), size)
