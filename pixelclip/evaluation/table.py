"""One table of all evaluated data sets, as Markdown and as JSON, with the published results."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from pixelclip.evaluation.result_cache import DatasetResult
from pixelclip.utils.atomic_write import atomic_writer, write_text

# Heading, and the place of the number in an evaluator's result.
_ALWAYS = (
    ("mIoU", "sem_seg", "mIoU"),
    ("pixel accuracy", "sem_seg", "pACC"),
    ("mean accuracy", "sem_seg", "mACC"),
)
_WITH_MASKS = (
    ("mask accuracy", "mask_classification", "accuracy"),
    ("mean mask accuracy of classes", "mask_classification", "mean_class_accuracy"),
)
_EXPLANATION = """\
All but speeds and counts in percent. Images per second are those of the whole evaluation (reading,
model, metrics) after a warm-up; in brackets the number of images that were timed.
"""

# The paper's main table, mIoU in percent.
_PUBLISHED_BENCHMARKS = (
    "coco_2017_test_stuff_all_sem_seg",
    "ade20k_150_test_sem_seg",
    "context_59_test_sem_seg",
    "cityscapes_fine_sem_seg_val",
    "voc_2012_test_sem_seg",
)
_PUBLISHED_ROWS = {
    "ViT-B/16 SA-1B": (23.6, 18.7, 37.9, 27.2, 85.9),
    "ViT-B/16 DINO": (22.2, 17.4, 34.3, 22.9, 83.8),
    "ConvNeXt-B SA-1B": (21.4, 20.3, 35.4, 34.8, 67.2),
    "ConvNeXt-B DINO": (20.2, 19.4, 32.7, 30.0, 62.9),
}

Row = dict[str, Any]


def get_published_row(name: str) -> Mapping[str, float]:
    """Published mIoU in percent by data set, of one row of the paper's main table.

    Args:
        name: image encoder and mask source, such as "ViT-B/16 SA-1B"; "" for no row.

    Raises:
        ValueError: an unknown name; the text lists the known ones.
    """
    if not name:
        return {}
    if name not in _PUBLISHED_ROWS:
        raise ValueError(
            f"TEST.PUBLISHED_ROW is {name!r}; it must be one of {', '.join(_PUBLISHED_ROWS)}, or "
            "'' for none."
        )
    return dict(zip(_PUBLISHED_BENCHMARKS, _PUBLISHED_ROWS[name], strict=True))


def make_rows(
    names: Sequence[str],
    results: Mapping[str, DatasetResult],
    notes: Mapping[str, str],
    published: Mapping[str, float],
) -> list[Row]:
    """One dict per data set, in the order of ``names``, with None for what is not known.

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
            row[heading] = _find_metric(result, task, key)
        row["images per second"] = result.speed.images_per_second if result else None
        row["images timed"] = result.speed.images if result else None
        if published:
            row["published mIoU"] = published.get(name)
        row["images"] = result.num_images if result else None
        row["note"] = notes.get(name)
        rows.append(row)
    return rows


def _find_metric(result: DatasetResult | None, task: str, key: str) -> float | None:
    """A finite number or None: a mean over no class at all is not a number."""
    metrics = result.metrics.get(task) if result else None
    value = metrics.get(key, math.nan) if isinstance(metrics, Mapping) else math.nan
    return float(value) if math.isfinite(value) else None


def to_markdown(rows: Sequence[Row], published_row: str = "", protocol: str = "") -> str:
    """The rows as a Markdown table that can be read as it is, the notes, what its numbers mean."""
    headings = [key for key in rows[0] if key not in ("images timed", "note")]
    titles = [
        f"{heading} ({published_row})" if heading == "published mIoU" else heading
        for heading in headings
    ]
    cells = [[_cell(row, heading) for heading in headings] for row in rows]
    alignment = ["left" if key == "data set" else "right" for key in headings]
    # As lines: a note on what is missing is longer than a table is wide.
    notes = "".join(f"- {row['data set']}: {row['note']}\n" for row in rows if row["note"])
    notes = f"{notes}\n" if notes else ""
    return f"{to_markdown_table(titles, cells, alignment)}\n{notes}{protocol}{_EXPLANATION}"


def to_markdown_table(
    titles: Sequence[str], cells: Sequence[Sequence[str]], alignment: Sequence[str]
) -> str:
    """Cells as a Markdown table; ``alignment`` of each column is "left" or "right"."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    table = tabulate(
        escaped, titles, tablefmt="pipe", colalign=tuple(alignment), disable_numparse=True
    )
    return f"{table}\n"


def _cell(row: Row, heading: str) -> str:
    value = row[heading]
    if value is None:
        return "-"
    if heading == "images per second":
        return f"{value:.2f} ({row['images timed']})"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def write_table(
    rows: Sequence[Row], folder: str, published_row: str = "", protocol: str = ""
) -> str:
    """Write ``benchmark.md`` and ``benchmark.json`` into an existing folder.

    The JSON holds ``published_row``, ``protocol`` (how it was evaluated) and the unrounded
    ``rows``, null for what is not known.

    Returns:
        The Markdown.
    """
    markdown = to_markdown(rows, published_row, protocol)
    content = {"published_row": published_row, "protocol": protocol.strip(), "rows": list(rows)}
    with atomic_writer(os.path.join(folder, "benchmark.json")) as file:
        file.write((json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    write_text(os.path.join(folder, "benchmark.md"), markdown)
    return markdown
