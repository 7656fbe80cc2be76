#!/usr/bin/env python
"""Draw the loss and the use of the clusters of a training into OUTPUT_DIR/training.png."""

import argparse
import os
import sys


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output_dir", help="the OUTPUT_DIR of a training")
    folder = parser.parse_args().output_dir

    from pixelclip.utils.visualization import draw_training_curve, read_iteration_log, save_figure

    try:
        entries = read_iteration_log(os.path.join(folder, "iterations.jsonl"))
    except (OSError, ValueError) as error:
        sys.exit(f"No curve can be drawn: {error}")
    path = os.path.join(folder, "training.png")
    save_figure(draw_training_curve(entries), path)
    print(f"Wrote {path} ({len(entries)} iterations)")


if __name__ == "__main__":
    main()
