#!/usr/bin/env python
"""Draw the loss and the use of the clusters of a training.

Writes OUTPUT_DIR/training.png.
"""

import argparse
import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output_dir", help="the OUTPUT_DIR of a training")
    folder = parser.parse_args(arguments).output_dir

    from pixelclip.utils.visualization import draw_training_curve, read_iteration_log, save_figure

    entries = read_iteration_log(os.path.join(folder, "iterations.jsonl"))
    path = os.path.join(folder, "training.png")
    save_figure(draw_training_curve(entries), path)
    print(f"Wrote {path} ({len(entries)} iterations)")
    return 0


if __name__ == "__main__":
    from cli import run

    sys.exit(run(main))
