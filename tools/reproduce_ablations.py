"""Repeat the paper's comparisons in the embedded world and write them as one table.

Finished runs are kept: start it again to go on. Draw the scenes first:
python datasets/prepare_toy_scenes.py
"""

import argparse
import sys
from pathlib import Path

from pixelclip.toy.ablations import REPORTED_ON, VARIANTS, reproduce_ablations


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("output/ablations"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    names = [variant.name for variant in VARIANTS]
    parser.add_argument("--variants", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument(
        "--dataset", default=REPORTED_ON, choices=[REPORTED_ON, "toy_scenes_val"],
        help="test to report, val to choose settings",
    )  # fmt: skip
    parser.add_argument(
        "--opts", nargs="+", default=[], help="KEY VALUE pairs for all variants, as in training"
    )
    arguments = parser.parse_args()
    variants = [variant for variant in VARIANTS if variant.name in arguments.variants]
    try:
        table = reproduce_ablations(
            variants, arguments.seeds, arguments.output, arguments.dataset, arguments.opts
        )
    except (OSError, ValueError) as error:
        sys.exit(f"The comparisons cannot run: {error}")
    print(table.read_text())


if __name__ == "__main__":
    main()
