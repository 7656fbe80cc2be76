"""The result of a speed analysis as a table for people and JSON for programs."""

import json
from statistics import median

from pixelclip.analysis.speed import Result
from pixelclip.evaluation.table import layout_markdown_table
from pixelclip.utils.atomic_write import atomic_writer


def format_result(result: Result) -> str:
    """A table in Markdown, one column for each configuration."""
    parties = result["configurations"]
    rows = [["", *(f"{index + 1}" for index in range(len(parties)))]]
    rows += [
        ["milliseconds a step (median)", *(f"{1e3 * p['median_seconds']:.1f}" for p in parties)],
        ["fastest to slowest", *(_range(p["seconds"]) for p in parties)],
        ["images a step", *(str(p["images_per_step"]) for p in parties)],
        ["images per second", *(f"{p['images_per_second']:.2f}" for p in parties)],
        ["peak memory (GB)", *(_billions(p["peak_memory_bytes"], 2) for p in parties)],
        *_operation_rows(parties),
        *_stage_rows(parties),
    ]
    names = [f"{index + 1}: {party['name']}" for index, party in enumerate(parties)]
    return "\n".join([*names, "", layout_markdown_table(rows, len(rows[0])), *_comparison(parties)])


def save_result(result: Result, path: str) -> None:
    """Write a result as JSON, in one step."""
    with atomic_writer(path) as file:
        file.write((json.dumps(result, indent=2) + "\n").encode())


def _billions(value: float, digits: int = 1) -> str:
    return f"{value / 1e9:.{digits}f}"


def _range(seconds: list[float]) -> str:
    return f"{1e3 * min(seconds):.1f} to {1e3 * max(seconds):.1f}"


def _operation_rows(parties: list[Result]) -> list[list[str]]:
    if not any(party["operations_per_step"] for party in parties):
        return []
    return [
        ["operations a step (10^9)", *(_billions(p["operations_per_step"]) for p in parties)],
        ["10^9 operations a second", *(_billions(p["operations_per_second"]) for p in parties)],
        ["share of a matrix product's", *(_share_of_peak(p) for p in parties)],
    ]


def _share_of_peak(party: Result) -> str:
    peak = party["peak_operations_per_second"] / 1e9
    return f"{100 * party['share_of_peak']:.0f}% of {peak:.0f} ({party['peak_dtype']})"


def _stage_rows(parties: list[Result]) -> list[list[str]]:
    """The share of each stage, the longest first."""
    names = dict.fromkeys(name for party in parties for name in party["stages"])
    shares = [[party["stages"].get(name, 0.0) for party in parties] for name in names]
    ordered = sorted(zip(names, shares, strict=True), key=lambda row: -max(row[1]))
    return [[name, *(f"{100 * share:.1f}%" for share in of_name)] for name, of_name in ordered]


def _comparison(parties: list[Result]) -> list[str]:
    """How much faster the later configurations are than the first, round by round."""
    lines = []
    for index, party in enumerate(parties[1:], start=2):
        pairs = zip(parties[0]["seconds"], party["seconds"], strict=True)
        scale = party["images_per_step"] / parties[0]["images_per_step"]
        ratio = median(first / other for first, other in pairs) * scale
        lines.append(f"\n{index} makes {ratio:.2f} times as many images per second as 1.")
    return lines
