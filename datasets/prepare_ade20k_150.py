"""Write the ADE20K-150 validation labels as Detectron2's evaluator reads them: 0..149, 255 void."""

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

    from pixelclip.data.datasets.ade20k_150 import prepare_ade20k_150
    from pixelclip.data.label_preparation import run_preparation

    return run_preparation(prepare_ade20k_150, **vars(options))


if __name__ == "__main__":
    sys.exit(main())
