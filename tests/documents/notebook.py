"""Execute the tutorial notebook; `python -m tests.documents.notebook` saves its new outputs."""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from tests.documents.check import REPOSITORY

NOTEBOOK = REPOSITORY / "docs" / "tutorial.ipynb"
TIMEOUT = 600  # seconds for a cell


def main() -> int:
    """Replace the outputs of the notebook by those of this run."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = execute_notebook(Path(folder))
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = [_shorten(one, folder) for one in cell.outputs if not _warns(one)]
    nbformat.write(notebook, NOTEBOOK)
    return 0


def execute_notebook(home: Path) -> NotebookNode:
    """Run the notebook from top to bottom, without a GPU or a network; return it with its outputs.

    Args:
        home: an empty folder. The notebook works in a folder below it.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    (home / "notebook").mkdir()
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        coalesce_streams=True,
        record_timing=False,
        resources={"metadata": {"path": str(home / "notebook")}},
    )
    client.execute(env=_make_environment(home))
    return notebook


def _warns(output: NotebookNode) -> bool:
    """Whether an output is about this machine's installation."""
    return output.get("name") == "stderr"


def _shorten(output: NotebookNode, home: str) -> NotebookNode:
    """An output without paths of this machine, and with the smaller one of two image formats."""
    if "text" in output:
        lines = [line for line in output.text.splitlines(keepends=True) if "CUDA_HOME" not in line]
        text = "".join(lines).replace(f"{home}/notebook/", "").replace(f"{REPOSITORY}/", "")
        output["text"] = text
    formats = [name for name in output.get("data", {}) if name.startswith("image/")]
    for name in sorted(formats, key=lambda name: len(output.data[name]))[1:]:
        del output.data[name]
    return output


def _make_environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "NO_COLOR": "1",
    }


if __name__ == "__main__":
    sys.exit(main())
