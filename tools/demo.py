#!/usr/bin/env python
"""Run the whole method on the toy benchmark in a few minutes, and write a report.

After an interruption, the same command resumes.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--output", type=Path, default=Path("output/demo"), help="folder (%(default)s)"
    )
    parser.add_argument("--fresh", action="store_true", help="start again instead of resuming")
    parser.add_argument("--opts", nargs="+", default=[], help="config keys and values: KEY VALUE")
    options = parser.parse_args(arguments)

    from pixelclip.toy.demo import run_demo
    from pixelclip.toy.report import describe_demo

    if not os.environ.get("DETECTRON2_DATASETS"):
        os.environ["DETECTRON2_DATASETS"] = str(options.output / "datasets")
    report, existed = run_demo(options.output, options.opts, options.fresh)
    if existed:
        print("The demo was finished before; --fresh runs it again.")
    print(describe_demo(report))
    return 0


if __name__ == "__main__":
    from cli import run

    sys.exit(run(main))
