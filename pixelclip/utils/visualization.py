"""Pictures of label maps and masks, and of what a training did.

Pictures are (H, W, 3) uint8 RGB arrays; label maps (H, W) hold class indices.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pixelclip.utils.atomic_write import atomic_writer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture = NDArray[np.uint8]

_SMOOTHING_WINDOW = 20

# Widths in inches, at the legend's font size: of a letter, and of a sample with the gaps about it.
_LETTER_WIDTH, _SAMPLE_WIDTH = 0.065, 0.42

# Pixels of no class, and what no mask covers.
_VOID_COLOUR = (255, 255, 255)

# Levels of each channel among which the colours of classes are chosen; 12**3 are enough for any
# vocabulary in use.
_LEVELS = np.linspace(0, 255, 12).round()

# Oklab's matrices: linear RGB to cone responses, and their cube roots to lightness and hue.
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


@functools.lru_cache
def class_colours(count: int) -> NDArray[np.uint8]:
    """Colours (count, 3) that differ as much as they can; the first ones do not depend on how many.

    Each is the one, of all that are neither very dark nor very light, that is farthest from white
    and those before it in a space of distances as people see them (Oklab, Ottosson 2020).

    Raises:
        ValueError: more colours than can be told apart by a computer.
    """
    grid = np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS), axis=-1).reshape(-1, 3)
    lightness = _to_oklab(grid)[:, 0]
    candidates = grid[(lightness > 0.45) & (lightness < 0.92)]
    if not 0 < count <= len(candidates):
        raise ValueError(f"{count} colours were asked for; expected 1 to {len(candidates)}")
    positions = _to_oklab(candidates)
    distances = np.linalg.norm(positions - _to_oklab(np.array([_VOID_COLOUR])), axis=1)
    chosen = []
    for _ in range(count):
        chosen.append(int(distances.argmax()))
        to_latest = np.linalg.norm(positions - positions[chosen[-1]], axis=1)
        distances = np.minimum(distances, to_latest)
    colours = candidates[chosen].astype(np.uint8)
    colours.setflags(write=False)  # it is shared by all callers
    return colours


def _to_oklab(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Oklab coordinates (n, 3) of RGB colours (n, 3) in 0..255."""
    linear = (colours / 255) ** 2.2
    return np.cbrt(linear @ _TO_CONES.T) @ _TO_OKLAB.T


def colour_labels(labels: NDArray[np.integer], colours: NDArray[np.uint8]) -> Picture:
    """Colour a label map.

    Args:
        labels: (H, W); values that are no class, such as 255 for void, become white.
        colours: (C, 3) uint8, such as :func:`class_colours` gives.
    """
    is_class = (labels >= 0) & (labels < len(colours))
    picture = np.full((*labels.shape, 3), _VOID_COLOUR, np.uint8)
    picture[is_class] = colours[labels[is_class]]
    return picture


def overlay(picture: Picture, colours: Picture, opacity: float = 0.6) -> Picture:
    """Lay colours (H, W, 3) over a picture: 0 shows the picture alone, 1 the colours alone."""
    mixed = picture * (1.0 - opacity) + colours * float(opacity)
    return mixed.round().astype(np.uint8)


def overlay_masks(picture: Picture, masks: NDArray[np.bool_], opacity: float = 0.6) -> Picture:
    """Show each mask in a colour of its own, small ones on top, with a dark border.

    Args:
        picture: (H, W, 3).
        masks: (N, H, W) bool; none at all leaves a pale picture.
        opacity: see :func:`overlay`.
    """
    by_area = sorted(masks, key=lambda mask: int(mask.sum()), reverse=True)
    palette = class_colours(max(len(by_area), 1))
    colours = np.full_like(picture, _VOID_COLOUR)
    is_border = np.zeros(picture.shape[:2], bool)
    for mask, colour in zip(by_area, palette, strict=False):
        colours[mask] = colour
        is_border[mask] = False
        is_border |= mask & ~ndimage.binary_erosion(mask, border_value=1)
    shown = overlay(picture, colours, opacity)
    shown[is_border] //= 3
    return shown


def draw_picture_grid(
    rows: Sequence[Sequence[Picture]],
    titles: Sequence[str],
    legend: Mapping[str, Sequence[int]] | None = None,
    caption: str = "",
    cell_width: float = 1.6,
) -> Figure:
    """Draw rows of pictures under one row of titles.

    Args:
        rows: at least one row, each of as many pictures as there are titles.
        titles: one for each column.
        legend: colour (3,) in 0..255 of each name, for a legend below.
        caption: a line or several, below the pictures.
        cell_width: of each picture, in inches.

    Raises:
        ValueError: no row, or a row of another length.
    """
    from matplotlib.figure import Figure

    if not rows or any(len(row) != len(titles) for row in rows):
        lengths = [len(row) for row in rows]
        raise ValueError(f"the rows have {lengths} pictures; expected {len(titles)} in each")
    heights = [cell_width * max(p.shape[0] / p.shape[1] for p in row) for row in rows]
    width = cell_width * len(titles)
    columns = _count_legend_columns(legend or {}, width)
    text_height = 0.27 * -(-len(legend or {}) // columns) + 0.2 * len(caption.splitlines())
    figure = Figure(figsize=(width, sum(heights) + 0.3 + text_height), layout="constrained")
    axes = figure.subplots(len(rows), len(titles), squeeze=False, height_ratios=heights)
    for row_axes, pictures in zip(axes, rows, strict=True):
        for one, picture in zip(row_axes, pictures, strict=True):
            one.imshow(picture, interpolation="nearest")
            one.set_axis_off()
    for one, title in zip(axes[0], titles, strict=True):
        one.set_title(title, fontsize=9)
    if legend:
        _add_legend(figure, legend, columns, caption)
    elif caption:
        figure.supxlabel(caption, fontsize=8, color="0.35")
    return figure


def _count_legend_columns(names: Iterable[str], width: float) -> int:
    longest = max(map(len, names), default=0)
    return max(1, int(width / (_LETTER_WIDTH * longest + _SAMPLE_WIDTH)))


def _add_legend(
    figure: Figure, legend: Mapping[str, Sequence[int]], columns: int, title: str
) -> None:
    from matplotlib.patches import Patch

    patches = [
        Patch(facecolor=(red / 255, green / 255, blue / 255), edgecolor="0.4", label=name)
        for name, (red, green, blue) in legend.items()
    ]
    figure.legend(
        handles=patches,
        loc="outside lower center",
        ncols=min(len(patches), columns),
        frameon=False,
        title=title or None,
        title_fontsize=8,
        fontsize=8,
        handlelength=1.2,
        columnspacing=1.2,
    )


def read_iteration_log(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """Read ``iterations.jsonl`` of a training: one dict per iteration, in order.

    Of an iteration that a resumed training repeated, the last line counts. A last line that was
    cut off by a kill is left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not one of an iteration log, or there is none.
    """
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    by_iteration: dict[int, dict[str, float]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            by_iteration[entry["iteration"]] = {"total_loss": float("nan"), **entry}
        except (ValueError, TypeError, KeyError) as error:
            if number == len(lines):
                break
            raise ValueError(f"{os.fspath(path)}, line {number}: no iteration: {line!r}") from error
    if not by_iteration:
        raise ValueError(f"{os.fspath(path)} holds no iteration yet")
    return [by_iteration[iteration] for iteration in sorted(by_iteration)]


def draw_training_curve(entries: Sequence[Mapping[str, float]]) -> Figure:
    """Draw the loss and the clusters' shares over the iterations of a log.

    Args:
        entries: what :func:`read_iteration_log` returned.
    """
    # Its import may write a cache of fonts, which importing us must not do.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), layout="constrained")
    loss_axes, cluster_axes = figure.subplots(2, 1, sharex=True)
    iterations = [entry["iteration"] for entry in entries]
    losses = [entry["total_loss"] for entry in entries]
    loss_axes.plot(iterations, losses, color="0.75", linewidth=1, label="each iteration")
    label = f"median of {_SMOOTHING_WINDOW}"
    loss_axes.plot(iterations, _running_median(losses), color="tab:blue", label=label)
    loss_axes.set_ylabel("loss")
    loss_axes.legend()
    for name, label in (("clusters/used", "clusters in use"), ("clusters/largest", "largest one")):
        shares = [entry.get(name, np.nan) for entry in entries]
        cluster_axes.plot(iterations, shares, linewidth=1, label=label)
    cluster_axes.set(xlabel="iteration", ylabel="share within a batch", ylim=(0, 1))
    cluster_axes.legend()
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG; what stood at ``path`` stays until the new file is whole."""
    with atomic_writer(path) as file:
        figure.savefig(file, format="png", dpi=100)


def _running_median(values: Sequence[float]) -> list[float]:
    return [
        float(np.median(values[max(0, end - _SMOOTHING_WINDOW) : end]))
        for end in range(1, len(values) + 1)
    ]
