"""Pictures of what the class prompts of a model have come to mean.

Pictures are (H, W, 3) uint8 RGB arrays; cluster maps (H, W) hold cluster indices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pixelclip.utils.label_overlay import overlay_labels
from pixelclip.utils.visualization import Picture, class_colours, draw_picture_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patheffects import AbstractPathEffect

# Smaller regions, as a share of the picture, get no name: it would cover more than them.
_SMALLEST_NAMED = 0.02
_MOST_BARS_NAMED = 40


class NamedClusters:
    """A cluster map of one picture and the name of each cluster.

    Args:
        clusters: (H, W).
        names: K names.
    """

    def __init__(self, clusters: NDArray[np.integer], names: Sequence[str]) -> None:
        self.clusters = clusters
        self.names = tuple(names)

    def paint(self, picture: Picture) -> Picture:
        """Lay each cluster's colour over the picture."""
        return overlay_labels(picture, self.clusters, class_colours(len(self.names)), 0.7)

    def regions(self) -> list[tuple[str, int, int]]:
        """Name, row and column of each cluster's largest region that is not small.

        The place is the region's innermost pixel, so that a name stands on what it names.
        """
        found = []
        for cluster in np.unique(self.clusters).tolist():
            parts, count = ndimage.label(self.clusters == cluster)
            sizes = np.bincount(parts.reshape(-1), minlength=count + 1)[1:]
            if sizes.max() < _SMALLEST_NAMED * self.clusters.size:
                continue
            largest = np.pad(parts == sizes.argmax() + 1, 1)
            depths = ndimage.distance_transform_edt(largest)[1:-1, 1:-1]
            row, column = np.unravel_index(depths.argmax(), depths.shape)
            found.append((self.names[cluster], int(row), int(column)))
        return found


def draw_named_clusters(
    pictures: Sequence[Picture],
    maps: Sequence[Sequence[NamedClusters]],
    titles: Sequence[str],
    caption: str = "",
) -> Figure:
    """Draw the cluster maps of one or several models beside each picture, regions with names.

    Args:
        pictures: at least one.
        maps: for each picture one map for each model.
        titles: one for each model.
        caption: below the pictures.
    """
    rows = [
        [picture, *(named.paint(picture) for named in row)]
        for picture, row in zip(pictures, maps, strict=True)
    ]
    figure = draw_picture_grid(rows, ["picture", *titles], caption=caption, cell_width=2.6)
    outline = _outline("black")
    axes = iter(figure.axes)
    for row in maps:
        next(axes)  # the picture itself
        for named in row:
            one = next(axes)
            for name, y, x in named.regions():
                side = _side_of(x, named.clusters.shape[1])
                one.text(
                    x, y, name, color="white", fontsize=7, ha=side, va="center",
                    path_effects=outline,
                )  # fmt: skip
    return figure


def _outline(colour: str) -> list[AbstractPathEffect]:
    """Keeps letters legible on whatever lies below."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2, foreground=colour)]


def _side_of(x: int, width: int) -> str:
    """Where a text at a column begins, so that it stays inside the picture."""
    if x < 0.2 * width:
        return "left"
    return "right" if x > 0.8 * width else "center"


def draw_prompt_map(
    prompts: NDArray[np.floating],
    names: NDArray[np.floating],
    class_names: Sequence[str],
    caption: str = "",
) -> Figure:
    """Draw class prompts and class names as points of a plane.

    Args:
        prompts: (K, 2) places of the prompts, which are shown by their numbers.
        names: (C, 2) places of the names.
        class_names: C names.
        caption: below the picture.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 8.5), layout="constrained")
    axes = figure.subplots()
    _scatter(axes, prompts, names)
    _write_words(axes, prompts, names, class_names)
    axes.margins(0.08)
    axes.set(xticks=[], yticks=[])
    axes.legend(loc="best", fontsize=8)
    if caption:
        figure.supxlabel(caption, fontsize=8, color="0.35")
    return figure


def _scatter(axes: Axes, prompts: NDArray[np.floating], names: NDArray[np.floating]) -> None:
    axes.scatter(names[:, 0], names[:, 1], s=12, marker="s", color="0.45", label="class names")
    axes.scatter(
        prompts[:, 0],
        prompts[:, 1],
        s=130,
        c=class_colours(len(prompts)) / 255,
        edgecolors="0.25",
        linewidths=0.5,
        label="class prompts",
    )


def _write_words(
    axes: Axes,
    prompts: NDArray[np.floating],
    names: NDArray[np.floating],
    class_names: Sequence[str],
) -> None:
    dark, light = _outline("black"), _outline("white")
    for index, (x, y) in enumerate(prompts):
        axes.text(
            x, y, str(index), ha="center", va="center", fontsize=7, color="white", path_effects=dark
        )
    for name, place in zip(class_names, names, strict=True):
        to_left, to_below = _away_from_nearest(place, prompts)
        axes.annotate(
            name.split(",")[0],
            place,
            (-4 if to_left else 4, -3 if to_below else 3),
            textcoords="offset points",
            ha="right" if to_left else "left",
            va="top" if to_below else "bottom",
            fontsize=8,
            color="0.15",
            path_effects=light,
        )


def _away_from_nearest(
    place: NDArray[np.floating], prompts: NDArray[np.floating]
) -> tuple[bool, bool]:
    """Whether a word at a place goes to its left and below it, so that no prompt is covered."""
    nearest = prompts[np.linalg.norm(prompts - place, axis=1).argmin()]
    return bool(nearest[0] > place[0]), bool(nearest[1] > place[1])


def draw_cluster_usage(
    shares: NDArray[np.floating], names: Sequence[str], caption: str = ""
) -> Figure:
    """Draw the share of the pixels that each cluster has, the largest first.

    Args:
        shares: (K,) in 0..1.
        names: K names; those of the first ones stand in the picture.
        caption: below the bars.
    """
    from matplotlib.figure import Figure

    order = np.argsort(-shares, kind="stable")
    shown = order[:_MOST_BARS_NAMED]
    figure = Figure(figsize=(7, 1.2 + 0.19 * len(shown)), layout="constrained")
    axes = figure.subplots()
    colours = class_colours(len(shares))[shown] / 255
    axes.barh(range(len(shown)), 100 * shares[shown], color=colours, edgecolor="0.4", linewidth=0.5)
    labels = [f"{index}: {names[index]}" for index in shown]
    axes.set_yticks(range(len(shown)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("percent of the pixels")
    unused = int((shares == 0).sum())
    left_out = len(order) - len(shown)
    rest = f"; {left_out} more have {100 * shares[order[len(shown) :]].sum():.1f}%"
    axes.set_title(
        f"{len(shares) - unused} of {len(shares)} clusters have pixels"
        + (rest if left_out else ""),
        fontsize=9,
    )
    if caption:
        figure.supxlabel(caption, fontsize=8, color="0.35")
    return figure
