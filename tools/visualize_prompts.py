#!/usr/bin/env python
"""Write what the class prompts of checkpoints mean: names, clusters in images, agreement, usage."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", required=True, help="of the training")
    parser.add_argument("--weights", nargs="+", required=True, help="checkpoints to compare")
    parser.add_argument("--dataset", help="labeled data set to compare the clusters with")
    parser.add_argument(
        "--vocabulary",
        help="names for the prompts: a packaged vocabulary or a text file, a name in each line; "
        "by default the data set's classes",
    )
    parser.add_argument(
        "--images", "--pictures", nargs="+", default=[], help="by default four of the data set"
    )
    parser.add_argument("--max-images", type=int, help="of the data set, evenly spread")
    parser.add_argument("--output", type=Path, default=Path("output/prompts"), help="folder")
    parser.add_argument("--note", default="", help="stands below each figure")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="of the config")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    from pixelclip.analysis.prompt_report import report_prompts
    from pixelclip.data.vocabularies import read_vocabulary
    from pixelclip.engine.setup import load_config

    try:
        paths = report_prompts(
            load_config(options.config_file, options.overrides),
            options.weights,
            options.output,
            dataset=options.dataset,
            class_names=read_vocabulary(options.vocabulary) if options.vocabulary else (),
            images=options.images,
            max_images=options.max_images,
            note=options.note,
        )
    except (OSError, ValueError) as error:
        sys.exit(f"Nothing can be shown: {error}")
    print("Wrote", *paths, sep="\n  ")


if __name__ == "__main__":
    main()
