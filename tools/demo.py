#!/usr/bin/env python
"""Show in a few minutes, in a small drawn world, what PixelCLIP does; write a report of it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pixelclip.toy.demo import run_demo
from pixelclip.toy.demo_report import next_commands

CONFIG = "configs/demo/toy.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 1 after an error, or 130 after an interruption."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", default=CONFIG, help="of the training (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("output/demo"), help="(%(default)s)")
    parser.add_argument("--fresh", action="store_true", help="begin anew, not where it stopped")
    parser.add_argument("opts", nargs="*", help="config keys and values, as SOLVER.MAX_ITER 20")
    options = parser.parse_args(arguments)
    try:
        report, was_there = run_demo(
            options.config_file, options.output, options.opts, options.fresh
        )
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    if was_there:
        print("The demo was finished before; --fresh does all of it again.")
    print(f"The report is {report} (as text: {report.with_suffix('.md').name}). To go on:")
    print("\n".join(f"  {command}" for command in next_commands(options.output)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
