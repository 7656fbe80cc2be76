"""Draw label maps, masks, legends and training curves.

Images are (H, W, 3) uint8 RGB arrays; label maps (H, W) hold class indices. Nothing is resampled,
as Detectron2's Visualizer would do: a drawn image has the size of the image.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from PIL.ImageFont import FreeTypeFont, truetype

from pixelclip.utils.atomic_write import atomic_writer
from pixelclip.utils.class_colors import class_colors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ImageArray = NDArray[np.uint8]


def color_labels(labels: NDArray[np.integer], colors: ImageArray) -> ImageArray:
    """Draw a label map (H, W) in the colors (C, 3) of its classes, and other values in white."""
    is_class = (labels >= 0) & (labels < len(colors))
    image = np.full((*labels.shape, 3), 255, np.uint8)
    image[is_class] = colors[labels[is_class]]
    return image


def overlay_labels(
    image: ImageArray,
    labels: NDArray[np.integer],
    colors: ImageArray,
    opacity: float = 0.6,
    clear_class: int | None = None,
) -> ImageArray:
    """Lay a label map (H, W) over an image in the colors (C, 3) of the classes, with dark borders.

    Opacity 0 shows the image alone, 1 the colors alone; outside 0..1 it is a ValueError. Pixels of
    ``clear_class`` show the image alone.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity is {opacity}; it must lie between 0 and 1.")
    mixed = image * (1.0 - opacity) + color_labels(labels, colors) * float(opacity)
    drawn: ImageArray = mixed.round().astype(np.uint8)
    is_border = np.zeros(labels.shape, bool)
    is_border[:, :-1] = labels[:, :-1] != labels[:, 1:]
    is_border[:-1] |= labels[:-1] != labels[1:]
    drawn[is_border & (opacity > 0)] //= 2
    if clear_class is not None:
        drawn[labels == clear_class] = image[labels == clear_class]
    return drawn


def overlay_masks(image: ImageArray, masks: NDArray[np.bool_], opacity: float = 0.6) -> ImageArray:
    """Lay masks (N, H, W) over an image like the classes of a label map, small ones on top."""
    labels = np.full(image.shape[:2], -1)
    for index, mask in enumerate(sorted(masks, key=np.count_nonzero, reverse=True)):
        labels[mask] = index
    colors = class_colors([str(index) for index in range(len(masks))])  # masks have no names
    return overlay_labels(image, labels, colors, opacity)


class LegendEntry(NamedTuple):
    """A class of a legend, with an RGB color, or None for an empty frame."""

    text: str
    color: Sequence[int] | None


def add_legend(image: ImageArray, entries: Sequence[LegendEntry]) -> ImageArray:
    """Add a legend below an image (H, W, 3), in as many lines as its width needs.

    An image narrower than 160 pixels gets a white margin on its right. A text too long for a line
    ends in three dots.
    """
    import matplotlib  # brings a font with Latin, Greek, Cyrillic and Arabic letters

    height, width = image.shape[0], max(image.shape[1], 160)
    size = max(12, max(image.shape[:2]) // 40)
    line_height = round(1.5 * size)
    font = truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
    places = _place_texts([entry.text for entry in entries], width - size, font)
    bottom = height + size // 2 + (places[-1][1] + 1 if places else 0) * line_height
    canvas = Image.new("RGB", (width, bottom), "white")
    canvas.paste(Image.fromarray(image))
    draw = ImageDraw.Draw(canvas)
    for (x, line, text), (_, color) in zip(places, entries, strict=True):
        left, top = size // 2 + x, height + size // 2 + line * line_height
        fill = None if color is None else tuple(color)
        draw.rectangle((left, top, left + size, top + size), fill, outline=(110, 110, 110))
        # "ls": the text's left end, on its base line.
        draw.text((left + 1.4 * size, top + 0.85 * size), text, (30, 30, 30), font, anchor="ls")
    return np.asarray(canvas)


def _place_texts(texts: list[str], room: int, font: FreeTypeFont) -> list[tuple[int, int, str]]:
    """Offset in the line, line, and text of each entry, shortened to the room of a line."""

    def text_width(text: str) -> int:  # with the sample and the gap behind it
        return round(font.getlength(text) + 2.2 * font.size)

    places: list[tuple[int, int, str]] = []
    x = line = 0
    for full in texts:
        text = full
        while text_width(text) > room and len(full) > 1:
            full = full[:-1]
            text = f"{full}..."
        if places and x + text_width(text) > room:
            x, line = 0, line + 1
        places.append((x, line, text))
        x += text_width(text)
    return places


def draw_image_grid(
    rows: Sequence[Sequence[ImageArray]],
    titles: Sequence[str],
    legend: Mapping[str, Sequence[int]] = MappingProxyType({}),
    caption: str = "",
    cell_width: float = 1.6,
) -> Figure:
    """Draw rows of images, ``cell_width`` inches wide each, under one row of titles.

    Below are a caption, and a legend of names and their RGB colors in 0..255. No row, or a row of
    another length than the titles, is a ValueError.
    """
    from matplotlib.figure import Figure  # its import may write a cache of fonts
    from matplotlib.patches import Patch

    if {len(row) for row in rows} != {len(titles)}:
        lengths = [len(row) for row in rows]
        raise ValueError(f"the rows have {lengths} images; expected {len(titles)} in each")
    heights = [cell_width * max(len(image) / len(image[0]) for image in row) for row in rows]
    width = cell_width * len(titles)
    # In inches: a letter, a sample with the gaps around it, and lines.
    columns = max(1, int(width / (0.065 * max(map(len, legend), default=0) + 0.42)))
    text_height = 0.27 * -(-len(legend) // columns) + 0.2 * len(caption.splitlines())
    figure = Figure(figsize=(width, sum(heights) + 0.3 + text_height), layout="constrained")
    axes = figure.subplots(len(rows), len(titles), squeeze=False, height_ratios=heights)
    for place, title in zip(axes[0], titles, strict=True):
        place.set_title(title, fontsize=9)
    for place, image in zip(axes.flat, [image for row in rows for image in row], strict=True):
        place.imshow(image, interpolation="nearest")
        place.set_axis_off()
    if legend or caption:
        samples = [Patch(fc=np.divide(c, 255), ec="0.4", label=name) for name, c in legend.items()]
        figure.legend(
            handles=samples, title=caption or None, ncols=columns, loc="outside lower center",
            frameon=False, fontsize=8, title_fontsize=8, handlelength=1.2, columnspacing=1.2,
        )
    return figure


def read_iteration_log(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """Read ``iterations.jsonl`` of a training: one dict per iteration, in order.

    Of an iteration that a resumed training repeated, the last line counts. A line that a kill cut
    off is left out. Any other line, or none at all, is a ValueError.
    """
    complete = Path(path).read_text(encoding="utf-8").rpartition("\n")[0]
    try:
        entries = [{"total_loss": np.nan, **json.loads(line)} for line in complete.splitlines()]
        by_iteration = {entry["iteration"]: entry for entry in entries}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{os.fspath(path)} is not an iteration log: {error!r}") from error
    if not by_iteration:
        raise ValueError(f"{os.fspath(path)} holds no iteration yet")
    return [by_iteration[iteration] for iteration in sorted(by_iteration)]


def draw_training_curve(entries: Sequence[Mapping[str, float]]) -> Figure:
    """Draw the loss and the clusters' shares over the iterations of :func:`read_iteration_log`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    iterations = [entry["iteration"] for entry in entries]
    losses = [entry["total_loss"] for entry in entries]
    smooth = [np.median(losses[max(0, end - 20) : end]) for end in range(1, len(losses) + 1)]
    top.plot(iterations, losses, color="0.75", linewidth=1, label="each iteration")
    top.plot(iterations, smooth, color="tab:blue", label="median of 20")
    for name, label in (("clusters/used", "clusters in use"), ("clusters/largest", "largest one")):
        bottom.plot(iterations, [e.get(name, np.nan) for e in entries], linewidth=1, label=label)
    top.set_ylabel("loss")
    top.legend()
    bottom.set(xlabel="iteration", ylabel="share within a batch", ylim=(0, 1))
    bottom.legend()
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG; what stood at ``path`` stays until the new file is complete."""
    with atomic_writer(path) as file:
        figure.savefig(file, format="png", dpi=100)
