"""One table of all evaluated data sets, as Markdown and as JSON."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from pixelclip.evaluation.result_cache import DatasetResult
from pixelclip.utils.atomic_write import atomic_writer

# Heading, and where the figure stands in an evaluator's result.
_ALWAYS = (
    ("mIoU", "sem_seg", "mIoU"),
    ("pixel accuracy", "sem_seg", "pACC"),
    ("mean accuracy", "sem_seg", "mACC"),
)
_WITH_MASKS = (
    ("mask accuracy", "mask_classification", "accuracy"),
    ("mean mask accuracy of classes", "mask_classification", "mean_class_accuracy"),
)
_NOTHING = "-"
_EXPLANATION = """\
All but speeds and counts in percent. Images per second are those of the whole evaluation (reading,
model, metrics) after a warm-up; in brackets the number of images that were timed.
"""

Row = dict[str, Any]


def make_rows(
    names: Sequence[str],
    results: Mapping[str, DatasetResult],
    notes: Mapping[str, str],
    published: Mapping[str, float],
) -> list[Row]:
    """One dict per data set, in the order of ``names``, with None for what there is not.

    Args:
        names: all data sets that were asked for.
        results: those that were evaluated.
        notes: why the others were not, and what else must be known to read a row.
        published: mIoU by data set; an empty mapping gives no such column.
    """
    with_masks = any("mask_classification" in result.metrics for result in results.values())
    columns = (*(_WITH_MASKS if with_masks else ()), *_ALWAYS)
    rows = []
    for name in names:
        result = results.get(name)
        row: Row = {"data set": name}
        for heading, task, key in columns:
            row[heading] = _figure(result, task, key)
        row["images per second"] = result.speed.images_per_second if result else None
        row["images timed"] = result.speed.images if result else None
        if published:
            row["published mIoU"] = published.get(name)
        row["images"] = result.num_images if result else None
        row["note"] = notes.get(name)
        rows.append(row)
    return rows


def _figure(result: DatasetResult | None, task: str, key: str) -> float | None:
    """A finite number or None: a mean over no class at all is not a number."""
    metrics = result.metrics.get(task) if result else None
    value = metrics.get(key, math.nan) if isinstance(metrics, Mapping) else math.nan
    return float(value) if math.isfinite(value) else None


def to_markdown(rows: Sequence[Row], published_row: str = "", protocol: str = "") -> str:
    """The rows as a Markdown table that can be read as it is, and what its figures mean."""
    with_notes = any(row["note"] for row in rows)
    headings = [key for key in rows[0] if key not in ("images timed", "note")]
    titles = [
        f"{heading} ({published_row})" if heading == "published mIoU" else heading
        for heading in headings
    ]
    lines = [[*titles, *(["note"] if with_notes else [])]]
    for row in rows:
        cells = [_cell(row, heading) for heading in headings]
        lines.append([*cells, *([_escape(row["note"] or "")] if with_notes else [])])
    return f"{layout_markdown_table(lines, len(headings))}\n{protocol}{_EXPLANATION}"


def layout_markdown_table(lines: Sequence[Sequence[str]], aligned: int) -> str:
    """Lay out cells as a Markdown table that can be read as it is.

    Args:
        lines: the headings, then the rows, all of one length.
        aligned: how many columns are padded, the first to the left, the others to the right; after
            them comes at most one of free text, whose padding would only wrap lines.
    """
    widths = [max(len(line[column]) for line in lines) for column in range(aligned)]
    widths.extend([0] * (len(lines[0]) - aligned))
    padded = [
        [cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in pairs]
        for pairs in (list(enumerate(zip(line, widths, strict=True))) for line in lines)
    ]
    rules = ["-" * max(width - 1, 2) + ":" for width in widths]
    rules[0] = "-" * widths[0]
    if len(widths) > aligned:
        rules[-1] = "---"
    return "".join(f"| {' | '.join(line)} |\n" for line in [padded[0], rules, *padded[1:]])


def _cell(row: Row, heading: str) -> str:
    value = row[heading]
    if value is None:
        return _NOTHING
    if heading == "images per second":
        return f"{value:.2f} ({row['images timed']})"
    if isinstance(value, float):
        return f"{value:.2f}"
    return _escape(str(value))


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def write_table(
    rows: Sequence[Row], folder: str, published_row: str = "", protocol: str = ""
) -> str:
    """Write ``benchmark.md`` and ``benchmark.json`` into an existing folder.

    The JSON holds ``published_row``, ``protocol`` (how it was evaluated) and the unrounded
    ``rows``, null for what there is not.

    Returns:
        The Markdown.
    """
    markdown = to_markdown(rows, published_row, protocol)
    content = {"published_row": published_row, "protocol": protocol.strip(), "rows": list(rows)}
    with atomic_writer(os.path.join(folder, "benchmark.json")) as file:
        file.write((json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    with atomic_writer(os.path.join(folder, "benchmark.md")) as file:
        file.write(markdown.encode())
    return markdown
