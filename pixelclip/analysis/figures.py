"""Figures of what the class prompts of a model mean.

Images are (H, W, 3) uint8 RGB arrays; cluster maps (H, W) hold cluster indices.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy import ndimage

from pixelclip.utils.visualization import ImageArray, class_colors, draw_image_grid, overlay_labels

Clusters = NDArray[np.integer]
Floats = NDArray[np.floating]

# Smaller regions, as a share of the image, get no name: it would cover more than them.
_SMALLEST_NAMED = 0.02
_MAX_BARS = 40


def name_regions(clusters: Clusters, names: Sequence[str]) -> list[tuple[str, int, int]]:
    """Name, row and column of the innermost pixel of each cluster's largest region if not small."""
    found = []
    for cluster in np.unique(clusters).tolist():
        parts, count = ndimage.label(clusters == cluster)
        sizes = np.bincount(parts.reshape(-1), minlength=count + 1)[1:]
        if sizes.max() < _SMALLEST_NAMED * clusters.size:
            continue
        largest = np.pad(parts == sizes.argmax() + 1, 1)
        depths = ndimage.distance_transform_edt(largest)[1:-1, 1:-1]
        row, column = np.unravel_index(depths.argmax(), depths.shape)
        found.append((names[cluster], int(row), int(column)))
    return found


def draw_named_clusters(
    images: Sequence[ImageArray],
    maps: Sequence[Sequence[Clusters]],
    names: Sequence[Sequence[str]],
    titles: Sequence[str],
    caption: str = "",
) -> Figure:
    """Draw the cluster maps of one or several models next to each image, regions with names.

    Args:
        images: at least one.
        maps, names, titles: for each model the clusters of each image, their names, and a title.
        caption: below the images.
    """
    colors = [class_colors(one) for one in names]
    rows = [[image] for image in images]
    for row, *clusters in zip(rows, *maps, strict=True):
        pairs = zip(clusters, colors, strict=True)
        row += [overlay_labels(row[0], one, palette, 0.7) for one, palette in pairs]
    figure = draw_image_grid(rows, ["image", *titles], caption=caption, cell_width=2.6)
    axes = iter(figure.axes)
    for image_maps in zip(*maps, strict=True):
        next(axes)  # the image itself
        for clusters, model_names in zip(image_maps, names, strict=True):
            one = next(axes)
            for name, y, x in name_regions(clusters, model_names):
                # So that the text stays inside the image.
                third = np.searchsorted([0.2, 0.8], x / clusters.shape[1])
                side = ("left", "center", "right")[third]
                _write(one, name, (x, y), "white", fontsize=7, ha=side, va="center")
    return figure


def _write(axes: Axes, text: str, place: Any, color: str, **settings: Any) -> None:
    """Write a text with an outline that keeps it legible on any background."""
    outline = withStroke(linewidth=2, foreground="black" if color == "white" else "white")
    axes.annotate(text, place, color=color, path_effects=[outline], **settings)


def draw_prompt_map(
    prompts: Floats,
    names: Floats,
    class_names: Sequence[str],
    prompt_names: Sequence[str],
    caption: str = "",
) -> Figure:
    """Draw class prompts (K, 2), by their numbers, and class names (C, 2) as points of a plane.

    The prompts have the colors of their names, as in :func:`draw_named_clusters`.
    """
    figure, axes = _new_figure((9, 8.5), caption)
    axes.scatter(names[:, 0], names[:, 1], 12, "0.45", marker="s", label="class names")
    axes.scatter(
        prompts[:, 0], prompts[:, 1], 130, class_colors(prompt_names) / 255, edgecolors="0.25",
        linewidths=0.5, label="class prompts",
    )  # fmt: skip
    for index, place in enumerate(prompts):
        _write(axes, str(index), place, "white", fontsize=7, ha="center", va="center")
    for name, place in zip(class_names, names, strict=True):
        # Away from the nearest prompt, so that none is covered.
        nearest = prompts[np.linalg.norm(prompts - place, axis=1).argmin()]
        to_left, to_below = nearest > place
        _write(
            axes, name.split(",")[0], place, "0.15", fontsize=8,
            xytext=(-4 if to_left else 4, -3 if to_below else 3), textcoords="offset points",
            ha="right" if to_left else "left", va="top" if to_below else "bottom",
        )  # fmt: skip
    axes.margins(0.08)
    axes.set(xticks=[], yticks=[])
    axes.legend(loc="best", fontsize=8)
    return figure


def _new_figure(size: tuple[float, float], caption: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    if caption:
        figure.supxlabel(caption, fontsize=8, color="0.35")
    return figure, figure.subplots()


def draw_cluster_usage(shares: Floats, names: Sequence[str], caption: str = "") -> Figure:
    """Draw the share of the pixels, in 0..1, that each of K clusters has, the largest first.

    The first 40 are shown with their names; the others are summed in the title.
    """
    order = np.argsort(-shares, kind="stable")
    shown, rest = order[:_MAX_BARS], order[_MAX_BARS:]
    figure, axes = _new_figure((7, 1.2 + 0.19 * len(shown)), caption)
    colors = class_colors(names)[shown] / 255
    labels = [f"{index}: {names[index]}" for index in shown]
    axes.barh(range(len(shown)), 100 * shares[shown], color=colors, edgecolor="0.4", linewidth=0.5)
    axes.set_yticks(range(len(shown)), labels, fontsize=8)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("percent of the pixels")
    title = f"{np.count_nonzero(shares)} of {len(shares)} clusters have pixels"
    more = f"; {len(rest)} more have {shares[rest].sum():.1%}" if len(rest) else ""
    axes.set_title(title + more, fontsize=9)
    return figure
