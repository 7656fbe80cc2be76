#!/usr/bin/env python
"""Repeat the paper's comparisons on the toy benchmark and write them as one table.

Finished runs are kept: start it again to resume. Draw the scenes first:
pixelclip datasets prepare toy_scenes
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--output", type=Path, default=Path("output/ablations"), help="folder (%(default)s)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="(%(default)s)")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="rows of the table (all)")
    parser.add_argument(
        "--dataset", default="toy_scenes_test", choices=["toy_scenes_test", "toy_scenes_val"],
        help="test to report, val to choose settings (%(default)s)",
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
    table = reproduce_ablations(
        variants, options.seeds, options.output, options.dataset, options.opts
    )
    print(table.read_text())
    return 0


if __name__ == "__main__":
    from cli import run

    sys.exit(run(main))
