import ast
from pathlib import Path

import pytest
import yaml

from .run import ROOT, try_mutation
from .table import MUTATIONS, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_a_mutation_fits_its_file(mutation: Mutation) -> None:
    text = (ROOT / mutation.file).read_text()
    assert text.count(mutation.old) == 1
    mutated = text.replace(mutation.old, mutation.new)
    parse = ast.parse if mutation.file.endswith(".py") else yaml.safe_load
    assert mutated != text and parse(mutated)
    assert any((ROOT / test).is_file() for test in mutation.tests)


def test_there_are_many_different_ones() -> None:
    assert len({(m.file, m.old, m.new) for m in MUTATIONS}) == len(MUTATIONS) >= 40
    assert len({mutation.what for mutation in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.parametrize(
    ("new", "verdict", "reason"),
    [
        ("1 + 1", "survived", "1 passed"),
        ("3", "killed", "test_it.py::test_two"),
        ("1 /", "broken", "test_it.py"),
    ],
)
def test_verdicts(tmp_path: Path, new: str, verdict: str, reason: str) -> None:
    (tmp_path / "two.py").write_text("TWO = 2\n")
    (tmp_path / "test_it.py").write_text("from two import TWO\ndef test_two(): assert TWO == 2\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    mutation = Mutation("two", "two.py", "2", new, ("test_it.py", "test_none.py"))
    outcome = try_mutation(mutation, tmp_path)
    assert outcome.verdict == verdict
    assert reason in outcome.reason
    assert (tmp_path / "two.py").read_text() == "TWO = 2\n"
