#!/usr/bin/env python
"""Check that a GPU computes what the CPU does, and measure how fast; needs no data.

Takes at most 5 minutes on one GPU. Without a GPU, it checks what can be checked and says what is
missing. The exit code is 1 where a check has failed.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 1 where a check has failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("output/gpu_check"),
        help="folder of report.md, report.json and log.txt (%(default)s)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=5.0,
        help="checks that take longer are skipped (%(default)s)",
    )
    options = parser.parse_args(arguments)
    if not options.minutes > 0:
        parser.error(f"--minutes is {options.minutes}; expected a positive number")
    from pixelclip.analysis.gpu_check import check_gpu

    return 0 if check_gpu(options.output, 60 * options.minutes) else 1


if __name__ == "__main__":
    from cli import run

    sys.exit(run(main))
