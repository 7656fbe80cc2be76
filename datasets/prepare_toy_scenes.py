"""Draw the toy benchmark's scenes: 4,000 with masks to train on, 300 and 600 with labels."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--root",
        type=Path,
        default=Path(os.environ.get("DETECTRON2_DATASETS") or "datasets").expanduser(),
        help="folder of all data sets; default: $DETECTRON2_DATASETS or ./datasets (%(default)s)",
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes that draw (%(default)s)"
    )
    options = parser.parse_args(arguments)

    from pixelclip.toy.datasets import write_scenes

    try:
        written, existing = write_scenes(options.root, options.workers)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{written} scenes written, {existing} existed before.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
