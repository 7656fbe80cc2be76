#!/usr/bin/env python
"""Show what class prompts mean: nearest names, clusters in images, agreement, usage."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", nargs="+", required=True, help="checkpoints to compare")
    parser.add_argument("--config-file", default="", help="default: the one of the first weights")
    parser.add_argument("--dataset", help="labeled data set to compare the clusters with")
    parser.add_argument(
        "--vocabulary",
        help="names for the prompts: a packaged vocabulary or a file of names; by default the data "
        "set's classes",
    )
    parser.add_argument(
        "--images", nargs="+", default=[], help="by default four of the data set"
    )
    parser.add_argument("--max-images", type=int, help="of the data set, evenly spread")
    parser.add_argument(
        "--output", type=Path, default=Path("output/prompts"), help="folder (%(default)s)"
    )
    parser.add_argument("--note", default="", help="a text below each figure")
    parser.add_argument("--opts", nargs="+", default=[], help="config keys and values: KEY VALUE")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    from pixelclip.analysis.prompt_report import report_prompts
    from pixelclip.data.vocabularies import read_vocabulary
    from pixelclip.engine.setup import load_config

    paths = report_prompts(
        load_config(options.config_file, options.opts, options.weights[0]),
        options.weights,
        options.output,
        dataset=options.dataset,
        class_names=read_vocabulary(options.vocabulary) if options.vocabulary else (),
        images=options.images,
        max_images=options.max_images,
        note=options.note,
    )
    print("Wrote", *paths, sep="\n  ")
    return 0


if __name__ == "__main__":
    from cli import run

    sys.exit(run(main))
