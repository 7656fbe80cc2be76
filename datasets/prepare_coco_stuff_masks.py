"""Write the regions of COCO-Stuff's labels as unlabeled masks in SA-1B's JSON, for training."""

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
    parser.add_argument(
        "--split",
        choices=("train2017", "val2017"),
        default="train2017",
        help="images to prepare (%(default)s)",
    )
    options = parser.parse_args(arguments)

    from pixelclip.data.datasets.coco_stuff import prepare_coco_stuff_masks
    from pixelclip.data.label_preparation import run_preparation

    return run_preparation(prepare_coco_stuff_masks, **vars(options))


if __name__ == "__main__":
    sys.exit(main())
