"""The tutorial notebook runs from top to bottom, and is stored with its outputs."""

import re

import nbformat
import pytest

from tests.documents.check import REPOSITORY
from tests.documents.notebook import NOTEBOOK, execute_notebook

FAILED_COMMAND = re.compile(r"^(error: |Traceback|usage: |.*command not found)", re.MULTILINE)


def read_outputs(notebook):
    """Each code cell with the text of its outputs."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shown = [output.get("text") or output.data["text/plain"] for output in cell.outputs]
            yield cell, "\n".join(shown)


@pytest.fixture(scope="module")
def stored():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_stored_with_outputs_and_no_path_of_a_machine(stored):
    cells = list(read_outputs(stored))
    assert all(cell.outputs or cell.source.startswith("import") for cell, _ in cells)
    assert [cell.execution_count for cell, _ in cells] == list(range(1, len(cells) + 1))
    for _, text in cells:
        assert not FAILED_COMMAND.search(text)
        assert not re.search(r"/(tmp|home|root|work|usr)/", text), text
    assert NOTEBOOK.stat().st_size < 500_000, "images of a notebook must be small"


def test_its_links_lead_somewhere(stored):
    for cell in stored.cells:
        for target in re.findall(r"\]\(([\w./]+)\)", cell.source):
            assert (REPOSITORY / "docs" / target).exists(), target


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path):
    for cell, text in read_outputs(execute_notebook(tmp_path)):
        assert not FAILED_COMMAND.search(text), f"{cell.source}\n{text}"
