"""Pictures of what a training did."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pixelclip.atomic_write import atomic_writer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SMOOTHING_WINDOW = 20


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
