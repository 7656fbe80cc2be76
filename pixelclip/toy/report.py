"""A document of texts, tables and pictures, as Markdown and as one self-contained HTML file."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pixelclip.evaluation.table import layout_markdown_table
from pixelclip.utils.atomic_write import atomic_writer

_STYLE = """\
:root { color-scheme: light dark; --line: #8884; --bar: #4c8bf53d; --quiet: #888; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 62rem; margin: auto; padding: 1rem; }
h1 { font-size: 1.8rem; line-height: 1.2; } h2 { margin-top: 2.4rem; font-size: 1.25rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child, th.text, td.text { text-align: left; }
th { border-bottom: 2px solid var(--quiet); } tr.strong td { font-weight: 600; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; background: white; }
figcaption { color: var(--quiet); font-size: .9rem; }
pre { padding: .8rem 1rem; border: 1px solid var(--line); overflow-x: auto; font-size: .85rem; }
"""


@dataclass(frozen=True)
class Heading:
    """A heading of a section."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Commands:
    """Lines for a shell."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        headings: of the columns.
        rows: cells; a float is shown with one decimal, NaN as "-".
        percent: columns of percentages, which HTML shows as bars too.
        signed: columns of differences, which have a sign.
        strong: rows that matter most.
        has_text_at_end: the last column is free text.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str | float]]
    percent: Sequence[int] = ()
    signed: Sequence[int] = ()
    strong: Sequence[int] = ()
    has_text_at_end: bool = False


@dataclass(frozen=True)
class Figure:
    """A PNG file below the folder of the report."""

    path: str
    caption: str


Block = Heading | Paragraph | Commands | Table | Figure


def write_report(folder: Path, title: str, blocks: Sequence[Block]) -> tuple[Path, Path]:
    """Write ``report.md``, which refers to its pictures, and ``report.html``, which holds them.

    Args:
        folder: of both, and of the pictures.
        title: of the document.
        blocks: its content.

    Returns:
        The paths of the two files.

    Raises:
        OSError: a picture cannot be read, or a file cannot be written.
    """
    markdown = "\n".join([f"# {title}\n", *map(to_markdown, blocks)])
    body = "\n".join(to_html(block, folder) for block in blocks)
    page = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{_STYLE}</style>\n</head>\n"
        f"<body>\n<h1>{html.escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )
    paths = folder / "report.md", folder / "report.html"
    for path, content in zip(paths, (markdown, page), strict=True):
        with atomic_writer(path) as file:
            file.write(content.encode())
    return paths


def to_markdown(block: Block) -> str:
    """Markdown of a block, with a line break at its end."""
    if isinstance(block, Heading):
        return f"## {block.text}\n"
    if isinstance(block, Paragraph):
        return f"{block.text}\n"
    if isinstance(block, Commands):
        return "".join(f"    {line}\n" for line in block.lines)
    if isinstance(block, Figure):
        return f"![{block.caption}]({block.path})\n\n*{block.caption}*\n"
    cells = [
        [_format(block, column, cell).replace("|", "\\|") for column, cell in enumerate(row)]
        for row in block.rows
    ]
    aligned = len(block.headings) - block.has_text_at_end
    return layout_markdown_table([list(block.headings), *cells], aligned)


def to_html(block: Block, folder: Path) -> str:
    """HTML of a block.

    Args:
        block: what is to be shown.
        folder: that the paths of figures start from; their files are read.
    """
    if isinstance(block, Heading):
        return f"<h2>{html.escape(block.text)}</h2>"
    if isinstance(block, Paragraph):
        return f"<p>{html.escape(block.text)}</p>"
    if isinstance(block, Commands):
        return f"<pre>{html.escape(chr(10).join(block.lines))}</pre>"
    if isinstance(block, Figure):
        data = base64.b64encode((folder / block.path).read_bytes()).decode()
        caption = html.escape(block.caption)
        source = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
        return f"<figure>{source}<figcaption>{caption}</figcaption></figure>"
    return _table_to_html(block)


def _table_to_html(table: Table) -> str:
    lines = ["<table>", "<thead><tr>"]
    for column, heading in enumerate(table.headings):
        lines.append(f"<th{_class_of(table, column)}>{html.escape(heading)}</th>")
    lines.append("</tr></thead><tbody>")
    for number, row in enumerate(table.rows):
        cells = "".join(_cell_to_html(table, column, cell) for column, cell in enumerate(row))
        strong = ' class="strong"' if number in table.strong else ""
        lines.append(f"<tr{strong}>{cells}</tr>")
    return "\n".join([*lines, "</tbody></table>"])


def _cell_to_html(table: Table, column: int, cell: str | float) -> str:
    style = ""
    if column in table.percent and isinstance(cell, float) and cell == cell:
        bar = f"linear-gradient(90deg, var(--bar) {cell:.1f}%, transparent {cell:.1f}%)"
        style = f' style="background: {bar}"'
    text = html.escape(_format(table, column, cell))
    return f"<td{_class_of(table, column)}{style}>{text}</td>"


def _class_of(table: Table, column: int) -> str:
    is_text = table.has_text_at_end and column == len(table.headings) - 1
    return ' class="text"' if is_text else ""


def _format(table: Table, column: int, cell: str | float) -> str:
    if isinstance(cell, str):
        return cell
    if cell != cell:  # NaN
        return "-"
    return f"{cell:+.1f}" if column in table.signed else f"{cell:.1f}"
