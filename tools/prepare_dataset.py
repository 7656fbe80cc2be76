#!/usr/bin/env python
"""Prepare a benchmark's labels for evaluation, or draw the toy benchmark's scenes."""

import argparse
import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path

# The function that prepares each data set.
FUNCTIONS = {
    "coco_stuff": "pixelclip.data.datasets.coco_stuff:prepare_coco_stuff",
    "coco_stuff_masks": "pixelclip.data.datasets.coco_stuff:prepare_coco_stuff_masks",
    "ade20k_150": "pixelclip.data.datasets.ade20k_150:prepare_ade20k_150",
    "pascal_context": "pixelclip.data.datasets.pascal_context:prepare_pascal_context",
    "voc": "pixelclip.data.datasets.pascal_voc:prepare_pascal_voc",
    "toy_scenes": "pixelclip.toy.datasets:prepare_toy_scenes",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", choices=FUNCTIONS, help="what is prepared")
    parser.add_argument(
        "--root",
        type=Path,
        default=Path(os.environ.get("DETECTRON2_DATASETS") or "datasets").expanduser(),
        help="folder of all benchmarks; default: $DETECTRON2_DATASETS or ./datasets (%(default)s)",
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="files at a time (%(default)s)"
    )
    parser.add_argument(
        "--split",
        choices=("train2017", "val2017"),
        default="train2017",
        help="images of coco_stuff_masks (%(default)s)",
    )
    options = vars(parser.parse_args(arguments))
    dataset, split = options.pop("dataset"), options.pop("split")
    if dataset == "coco_stuff_masks":
        options["split"] = split

    from pixelclip.data.label_preparation import run_preparation

    return run_preparation(pkgutil.resolve_name(FUNCTIONS[dataset]), **options)


if __name__ == "__main__":
    from cli import run

    sys.exit(run(main))
