"""The command line of the check: what it chooses, prints and returns."""

from pathlib import Path

import pytest

from tests.documents import check
from tests.documents.code_blocks import SHELL, CodeBlock


class FakeSession:
    """Runs nothing; blocks whose code is "false" fail."""

    is_stopped = False

    def run(self, block: CodeBlock) -> str | None:
        return "exit code 1" if block.code.strip() == "false" else None


@pytest.fixture
def two_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "README.md").write_text("    true\n\nWords.\n\n    false\n")
    (tmp_path / "GETTING_STARTED.md").write_text("Words.\n")
    (tmp_path / "MODEL_ZOO.md").write_text("Words.\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "train.md").write_text("```python\nx = 1\n```\n")
    (tmp_path / "docs" / "limits.md").write_text("Words.\n")
    monkeypatch.setattr(check, "REPOSITORY", tmp_path)


@pytest.mark.parametrize(
    ("places", "lines"),
    [
        ([], {"README.md": [1, 5], "docs/train.md": [1]}),
        (["docs/train.md"], {"docs/train.md": [1]}),
        (["README.md:5"], {"README.md": [5]}),
        (["README.md:5", "README.md:1"], {"README.md": [5, 1]}),
    ],
)
def test_blocks_are_chosen_by_document_and_line(two_documents, places, lines):
    chosen = check.select_blocks(places)
    assert {name: [block.line for block in blocks] for name, blocks in chosen.items()} == lines


@pytest.mark.parametrize("place", ["OTHER.md", "docs/limits.md", "README.md:2", "README.md:x"])
def test_what_is_not_there_is_refused_before_anything_runs(two_documents, place, capsys):
    assert check.main([place]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ")


def test_each_block_gets_a_line_and_failures_count(two_documents, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(check, "build_world", lambda folder, document: None)
    monkeypatch.setattr(check, "Session", lambda world: FakeSession())
    monkeypatch.setattr(check.tempfile, "mkdtemp", lambda prefix: str(tmp_path / "worlds"))
    (tmp_path / "worlds").mkdir()
    assert check.main(["README.md:5"]) == 1
    printed = capsys.readouterr().out
    assert "README.md:5" in printed and "FAILED" in printed and "exit code 1" in printed
    assert str(tmp_path / "worlds") in printed and (tmp_path / "worlds").exists(), "to look at"
    assert check.main(["README.md:1", "docs/train.md"]) == 0
    printed = capsys.readouterr().out
    assert "README.md:1" in printed and "All 2 blocks ran" in printed
    assert not (tmp_path / "worlds").exists()


def test_a_stopped_session_runs_nothing(capsys):
    session = FakeSession()
    session.is_stopped = True
    assert check.run_document(session, [CodeBlock("README.md", 1, SHELL, "false")]) == 0
    assert capsys.readouterr().out == ""
