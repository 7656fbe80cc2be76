#!/usr/bin/env python
"""Draw images next to their labels and the results of CLIP, NACLIP and PixelCLIP."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", required=True, help="a model's name, file, folder or address")
    parser.add_argument("--config-file", default="", help="default: the one of the weights")
    parser.add_argument("--dataset", required=True, help="a registered data set with labels")
    parser.add_argument(
        "--num-images", type=int, default=4, help="evenly spread over the data set (%(default)s)"
    )
    parser.add_argument(
        "--images", nargs="+", default=[], help="instead, names of image files"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("output/results.png"), help="figure (%(default)s)"
    )
    parser.add_argument("--note", default="", help="a text below the images")
    parser.add_argument("--opts", nargs="+", default=[], help="config keys and values: KEY VALUE")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    from pixelclip.analysis.comparison import draw_comparison
    from pixelclip.engine.setup import load_config
    from pixelclip.utils.visualization import save_figure

    cfg = load_config(options.config_file, options.opts, options.weights)
    which = options.num_images, options.images
    figure = draw_comparison(cfg, options.dataset, cfg.MODEL.WEIGHTS, *which, options.note)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, options.output)
    print(f"Wrote {options.output}")
    return 0


if __name__ == "__main__":
    from cli import run

    sys.exit(run(main))
