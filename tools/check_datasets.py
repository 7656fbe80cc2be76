#!/usr/bin/env python
"""Say which data sets are complete, what the others lack, and how to fix it."""

import argparse
import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 if all data sets that were asked for are usable, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "datasets",
        nargs="*",
        help="names of data sets, or description files (.yaml, .json) of your own; "
        "default: SA-1B and the benchmarks",
    )
    parser.add_argument("--root", help="folder of all benchmarks; default: $DETECTRON2_DATASETS")
    parser.add_argument("--deep", action="store_true", help="read every label and mask, not some")
    options = parser.parse_args(arguments)
    if options.root:
        os.environ["DETECTRON2_DATASETS"] = options.root

    from pixelclip.data.dataset_check import DATASETS, check_dataset, format_statuses
    from pixelclip.data.datasets import register_sem_seg_folders

    def register(dataset: str) -> str:
        is_description = dataset.endswith((".yaml", ".yml", ".json"))
        return register_sem_seg_folders([dataset])[0] if is_description else dataset

    names = [register(dataset) for dataset in options.datasets or DATASETS]
    statuses = [check_dataset(name, options.deep) for name in names]
    print(format_statuses(statuses))
    return 0 if all(status.is_usable for status in statuses) else 1


if __name__ == "__main__":
    from cli import run

    sys.exit(run(main))
