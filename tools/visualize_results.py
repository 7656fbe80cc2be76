#!/usr/bin/env python
"""Draw pictures of a data set beside their labels, CLIP's and PixelCLIP's, with a legend."""

import argparse
import logging
import sys
from pathlib import Path

from pixelclip.analysis.comparison_images import draw_comparison
from pixelclip.engine.setup import load_config
from pixelclip.utils.visualization import save_figure


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", required=True, help="of PixelCLIP's training")
    parser.add_argument("--weights", required=True, help="PixelCLIP's checkpoint")
    parser.add_argument("--dataset", required=True, help="a registered data set with labels")
    parser.add_argument("--num-pictures", type=int, default=4, help="evenly spread; 4 by default")
    parser.add_argument("--pictures", nargs="+", default=[], help="instead, names of image files")
    parser.add_argument("--output", type=Path, default=Path("output/results.png"), help="PNG file")
    parser.add_argument("--note", default="", help="stands below the pictures")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="of the config")
    return parser.parse_args()


def main() -> None:
    """Read the command line and draw."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    arguments = parse_arguments()
    try:
        cfg = load_config(arguments.config_file, arguments.overrides)
        figure = draw_comparison(
            cfg,
            arguments.dataset,
            arguments.weights,
            arguments.num_pictures,
            arguments.pictures,
            arguments.note,
        )
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        save_figure(figure, arguments.output)
    except (OSError, ValueError) as error:
        sys.exit(f"Nothing can be drawn: {error}")
    print(f"Wrote {arguments.output}")


if __name__ == "__main__":
    main()
