"""Apply each mutation of ``table.py`` to a copy of the code, and see whether its tests fail.

Mutation testers such as mutmut and cosmic-ray change every operator and constant of whole modules:
thousands of mutants here, each with minutes of tests, most of them about messages and checks. This
script applies chosen ones, which say what must not change in the published method, and runs the
tests that must notice.

The copy has no ``../shared``, so that what is noticed is noticed in any clone.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from tests.mutations.table import MUTATIONS, Mutation
from tests.repository_copy import copy_repository

ROOT = Path(__file__).parents[2]
TESTS_FAILED = 1  # pytest's exit status
TIME_LIMIT = 600  # seconds; a mutant that needs longer is noticed, too


class Outcome(NamedTuple):
    """``verdict``: "killed", "survived" or "broken": it did not get as far as its tests."""

    verdict: str
    reason: str


def run_tests(tests: Sequence[str], folder: Path) -> Outcome:
    """Run those of the test files that exist, up to the first failure."""
    paths = [path for path in dict.fromkeys(tests) if (folder / path).exists()]
    environment = {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(folder),
        # Python would take a compiled file for that of a mutant of the same second and length.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    options = ["-x", "-q", "--tb=no", "-rfE", "-p", "no:cacheprovider", "-m", "not slow"]
    try:
        result = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *paths],
            cwd=folder,
            env={**os.environ, **environment},
            timeout=TIME_LIMIT,
            capture_output=True,
            text=True,
        )
    except subprocess.TimeoutExpired:
        return Outcome("killed", f"no end within {TIME_LIMIT} s")
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", result.stdout, re.MULTILINE)
    last_line = (result.stdout + result.stderr).strip().rpartition("\n")[2]
    verdicts = {0: "survived", TESTS_FAILED: "killed"}
    return Outcome(
        verdicts.get(result.returncode, "broken"), failed[1] if failed else last_line
    )


def try_mutation(mutation: Mutation, folder: Path) -> Outcome:
    """Apply a mutation to the copy, run its tests, and take it back."""
    path = folder / mutation.file
    text = path.read_text()
    path.write_text(text.replace(mutation.old, mutation.new, 1))
    try:
        return run_tests(mutation.tests, folder)
    finally:
        path.write_text(text)


def report(mutation: Mutation, folder: Path) -> bool:
    """Try a mutation, write a line of the table, and return whether it was killed."""
    outcome = try_mutation(mutation, folder)
    tqdm.write(f"{outcome.verdict:8}  {mutation.what} ({mutation.file}): {outcome.reason}")
    return outcome.verdict == "killed"


def main() -> int:
    parser = argparse.ArgumentParser(description="Do the tests notice changes of the method?")
    parser.add_argument("words", nargs="*", help="only mutations with one of them in what or file")
    words = parser.parse_args().words
    chosen = [m for m in MUTATIONS if not words or any(w in f"{m.what} {m.file}" for w in words)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "copy")
        copy_repository(ROOT, folder)
        unchanged = run_tests([test for m in chosen for test in m.tests], folder)
        if unchanged.verdict != "survived":
            sys.exit(f"The tests fail without any mutation: {unchanged.reason}")
        num_killed = sum(report(mutation, folder) for mutation in tqdm(chosen, unit="mutant"))
    print(f"{num_killed} of {len(chosen)} mutants were killed.")
    return int(num_killed < len(chosen))


if __name__ == "__main__":
    sys.exit(main())
