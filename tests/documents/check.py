"""Run every code block of the documents; `make docs-check` calls this.

Each document is read by a reader of its own, in a small copy of the repository (the module
small_world says what is small in it), from its first block to its last.
"""

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.documents import small_world
from tests.documents.code_blocks import CodeBlock, read_code_blocks
from tests.documents.session import Session
from tests.documents.small_world import SmallWorld, build_small_world

REPOSITORY = Path(__file__).resolve().parents[2]

# Pages that show how to prepare the labels of the benchmarks; readers of others have done so.
PREPARING = ("GETTING_STARTED.md", "docs/data.md")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 if every block ran, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "places", nargs="*", help="documents, or blocks as docs/train.md:12; default: every page"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="documents at a time")
    options = parser.parse_args(arguments)
    try:
        blocks = select_blocks(options.places)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(small_world.__doc__)
    folder = Path(tempfile.mkdtemp(prefix="docs-check-"))
    sessions = [Session(build_world(folder, document)) for document in blocks]
    failures = run_documents(sessions, list(blocks.values()), max(1, options.jobs))
    if failures:
        print(f"{failures} blocks failed; what they left is in {folder}")
        return 1
    shutil.rmtree(folder)
    print(f"All {sum(map(len, blocks.values()))} blocks ran.")
    return 0


def list_documents() -> list[str]:
    """The pages that are checked: all that have code blocks, by their place in the repository."""
    pages = ["README.md", "GETTING_STARTED.md", "MODEL_ZOO.md"]
    pages += [f"docs/{path.name}" for path in sorted((REPOSITORY / "docs").glob("*.md"))]
    return [page for page in pages if read_code_blocks(REPOSITORY / page, page)]


def select_blocks(places: Sequence[str] = ()) -> dict[str, list[CodeBlock]]:
    """Read the blocks of the documents, or of some, or the blocks that hold the given lines.

    Raises:
        OSError, ValueError: a document cannot be read, or has no such block.
    """
    chosen: dict[str, list[CodeBlock]] = {}
    documents = list_documents()
    for place in places or documents:
        document, _, line = place.partition(":")
        if document not in documents:
            raise ValueError(f"{document!r} is not one of {', '.join(documents)}")
        blocks = read_code_blocks(REPOSITORY / document, document)
        if line:
            blocks = [block for block in blocks if str(block.line) == line]
        if not blocks:
            raise ValueError(f"no code block begins at {place}")
        chosen.setdefault(document, []).extend(blocks)
    return chosen


def build_world(folder: Path, document: str) -> SmallWorld:
    """Build the world of a document's reader below a folder; what that prints goes to a file."""
    root = folder / document.removesuffix(".md").replace("/", "_")
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(root.with_suffix(".log"), "w"))
        stack.enter_context(contextlib.redirect_stdout(log))
        stack.enter_context(contextlib.redirect_stderr(log))
        return build_small_world(REPOSITORY, root, labels_prepared=document not in PREPARING)


def run_documents(
    sessions: Sequence[Session], blocks: Sequence[Sequence[CodeBlock]], jobs: int
) -> int:
    """Run the blocks of each document in its session; return how many failed.

    An interruption, or a SIGTERM, ends what the blocks have started, too.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ThreadPoolExecutor(jobs) as pool:
        try:
            return sum(pool.map(run_document, sessions, blocks))
        except KeyboardInterrupt:
            for session in sessions:
                session.stop()
            raise


def run_document(session: Session, blocks: Sequence[CodeBlock]) -> int:
    """Run blocks of one document and print a line of each; return how many failed."""
    failures = 0
    for block in blocks:
        if not session.is_stopped:
            failures += not _run_block(session, block)
    return failures


def _run_block(session: Session, block: CodeBlock) -> bool:
    start = time.monotonic()
    problem = session.run(block)
    seconds = time.monotonic() - start
    result = "ok" if problem is None else "FAILED"
    how = f"{block.language}, reduced" if block.is_reduced else block.language
    text = f"{block.place:28} {how:16} {result:7} {seconds:6.1f} s"
    print(text if problem is None else f"{text}\n{problem}\n", flush=True)
    return problem is None


if __name__ == "__main__":
    sys.exit(main())
