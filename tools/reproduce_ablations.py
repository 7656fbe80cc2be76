"""Repeat the paper's comparisons on the toy benchmark and write them as one table.

Finished runs are kept: start it again to resume. Draw the scenes first:
python datasets/prepare_toy_scenes.py
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("output/ablations"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="rows of the table (all)")
    parser.add_argument(
        "--dataset", default="toy_scenes_test", choices=["toy_scenes_test", "toy_scenes_val"],
        help="test to report, val to choose settings",
    )  # fmt: skip
    parser.add_argument(
        "--opts", nargs="+", default=[], help="KEY VALUE pairs for all variants, as in training"
    )
    options = parser.parse_args(arguments)

    from pixelclip.toy.ablations import VARIANTS, reproduce_ablations

    known = [variant.name for variant in VARIANTS]
    chosen = options.variants or known
    if unknown := set(chosen) - set(known):
        parser.error(f"unknown variants {sorted(unknown)}; choose from {known}")
    variants = [variant for variant in VARIANTS if variant.name in chosen]
    try:
        table = reproduce_ablations(
            variants, options.seeds, options.output, options.dataset, options.opts
        )
    except (OSError, ValueError) as error:
        sys.exit(f"The comparisons cannot run: {error}")
    print(table.read_text())


if __name__ == "__main__":
    main()
