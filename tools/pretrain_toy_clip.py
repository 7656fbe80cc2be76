#!/usr/bin/env python
"""Pretrain the tiny CLIP of the toy benchmark on captioned images.

The weights that PixelCLIP ships were made by this tool; docs/toy_benchmark.md has the command.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def build_parser() -> argparse.ArgumentParser:
    """The command line; its settings are those of ``PretrainingSettings``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("output/toy_clip"))
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--num-images", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=9_000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--warmup-steps", type=int, default=300)
    parser.add_argument("--patch-dropout", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=1)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0."""
    options = vars(build_parser().parse_args(arguments))

    from pixelclip.toy.pretraining import PretrainingSettings, pretrain

    output, processes = options.pop("output"), options.pop("processes")
    print(pretrain(PretrainingSettings(**options), output, processes))
    return 0


if __name__ == "__main__":
    from cli import run

    sys.exit(run(main))
