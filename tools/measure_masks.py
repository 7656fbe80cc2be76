#!/usr/bin/env python
"""Compare a generator's masks with those of a data set in SA-1B's layout, such as people's."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pixelclip.mask_generation.command_line import add_generator_arguments, read_generator_choice
from pixelclip.mask_generation.overlap import measure_overlap


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 where there is something to compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, required=True, help="tars, or images with JSON")
    add_generator_arguments(parser)
    options = parser.parse_args(arguments)
    try:
        choice = read_generator_choice(options)
        print(measure_overlap(options.reference, choice, options.num_workers))
    except (OSError, ValueError, RuntimeError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
