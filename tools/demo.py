#!/usr/bin/env python
"""Show in a few minutes, on the toy benchmark, what PixelCLIP does; write a report of it."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

CONFIG = "configs/demo/toy.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 1 after an error, or 130 after an interruption."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", default=CONFIG, help="of the training (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("output/demo"), help="(%(default)s)")
    parser.add_argument("--fresh", action="store_true", help="start again instead of resuming")
    parser.add_argument("opts", nargs="*", help="config keys and values, as SOLVER.MAX_ITER 20")
    options = parser.parse_args(arguments)

    from pixelclip.toy.demo import run_demo
    from pixelclip.toy.report import describe_demo

    if not os.environ.get("DETECTRON2_DATASETS"):
        os.environ["DETECTRON2_DATASETS"] = str(options.output / "datasets")
    try:
        report, existed = run_demo(options.config_file, options.output, options.opts, options.fresh)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; the same command resumes.", file=sys.stderr)
        return 130
    if existed:
        print("The demo was finished before; --fresh runs it again.")
    print(describe_demo(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
