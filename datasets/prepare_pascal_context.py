"""Write PASCAL Context's validation labels: 0..58 of Context-59, and 0..59 of Context-60."""

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
        help="folder of all benchmarks; default: $DETECTRON2_DATASETS or ./datasets (%(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="files converted at a time (%(default)s)",
    )
    options = parser.parse_args(arguments)

    from pixelclip.data.datasets.pascal_context import prepare_pascal_context
    from pixelclip.data.label_preparation import run_preparation

    return run_preparation(prepare_pascal_context, **vars(options))


if __name__ == "__main__":
    sys.exit(main())
