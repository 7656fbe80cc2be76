#!/usr/bin/env python
"""Copy SA-1B at half the size, as the published training reads it."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 1 where something was left out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "source", type=Path, help="folder of SA-1B's tars, or of images next to their JSON files"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the copy")
    parser.add_argument(
        "--short-side", type=int, default=750, help="of the copied images, in pixels (%(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="images at a time (%(default)s)",
    )
    options = parser.parse_args(arguments)

    from pixelclip.data.sa1b_resize import resize_sa1b

    report = resize_sa1b(**vars(options))
    print(report)
    return 1 if report.problems else 0


if __name__ == "__main__":
    from cli import run

    sys.exit(run(main))
