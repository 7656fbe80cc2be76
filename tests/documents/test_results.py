"""The results in the documents are those of their sources."""

import re
from pathlib import Path

import pytest

from pixelclip.evaluation.table import get_published_row

ROOT = Path(__file__).resolve().parents[2]
NUMBER = re.compile(r"\d+\.\d")


def rows(page: str, *beginnings: str) -> list[str]:
    """The table rows of a page that hold all of some texts."""
    lines = (ROOT / page).read_text().splitlines()
    return [line for line in lines if line.startswith("| ") and all(b in line for b in beginnings)]


@pytest.mark.parametrize(
    ("page", "beginnings", "name"),
    [
        ("README.md", ("ViT-B/16", "SA-1B"), "ViT-B/16 SA-1B"),
        ("README.md", ("ViT-B/16", "DINO"), "ViT-B/16 DINO"),
        ("README.md", ("ConvNeXt-B", "SA-1B"), "ConvNeXt-B SA-1B"),
        ("README.md", ("ConvNeXt-B", "DINO"), "ConvNeXt-B DINO"),
    ],
)
def test_published_results_are_those_that_evaluations_show(page, beginnings, name):
    (row,) = rows(page, *beginnings)
    assert [float(number) for number in NUMBER.findall(row)] == [*get_published_row(name).values()]


def test_readmes_toy_results_are_those_of_their_page():
    sentence = (ROOT / "README.md").read_text().split("On the toy benchmark")[1].split("\n\n")[0]
    results = re.findall(r"(\d+\.\d)\s+for", sentence)
    page = (ROOT / "docs" / "toy_benchmark.md").read_text()
    assert len(results) == 4
    assert all(re.search(rf"\b{result}\b", page) for result in results)


def test_readme_and_getting_started_stay_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 110
    assert len((ROOT / "GETTING_STARTED.md").read_text().splitlines()) <= 200
    for page in (ROOT / "docs").glob("*.md"):
        assert len(page.read_text().splitlines()) <= 150, page.name
