#!/usr/bin/env python
"""Draw images of a data set next to their labels, CLIP's and PixelCLIP's, with a legend."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", required=True, help="of PixelCLIP's training")
    parser.add_argument("--weights", required=True, help="PixelCLIP's checkpoint")
    parser.add_argument("--dataset", required=True, help="a registered data set with labels")
    parser.add_argument(
        "--num-images", "--num-pictures", type=int, default=4, help="evenly spread; 4 by default"
    )
    parser.add_argument(
        "--images", "--pictures", nargs="+", default=[], help="instead, names of image files"
    )
    parser.add_argument("--output", type=Path, default=Path("output/results.png"), help="PNG file")
    parser.add_argument("--note", default="", help="stands below the images")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="of the config")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    from pixelclip.analysis.comparison import draw_comparison
    from pixelclip.engine.setup import load_config
    from pixelclip.utils.visualization import save_figure

    try:
        cfg = load_config(options.config_file, options.overrides)
        which = options.num_images, options.images
        figure = draw_comparison(cfg, options.dataset, options.weights, *which, options.note)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        save_figure(figure, options.output)
    except (OSError, ValueError) as error:
        sys.exit(f"Nothing can be drawn: {error}")
    print(f"Wrote {options.output}")


if __name__ == "__main__":
    main()
