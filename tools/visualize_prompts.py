#!/usr/bin/env python
"""Write what the class prompts of checkpoints mean: names, clusters in pictures, agreement, use."""

import argparse
import logging
import sys
from pathlib import Path

from pixelclip.analysis.prompt_findings import choose_subject
from pixelclip.analysis.prompt_report import report_prompts
from pixelclip.data.vocabularies import read_vocabulary
from pixelclip.engine.setup import load_config


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", required=True, help="of the training")
    parser.add_argument("--weights", nargs="+", required=True, help="checkpoints to compare")
    parser.add_argument("--dataset", help="labelled data set to compare the clusters with")
    parser.add_argument(
        "--vocabulary",
        help="names for the prompts: a packaged vocabulary or a text file, a name in each line; "
        "by default the data set's classes",
    )
    parser.add_argument(
        "--pictures", nargs="+", default=[], help="image files; by default four of the data set"
    )
    parser.add_argument("--max-images", type=int, help="of the data set, evenly spread")
    parser.add_argument("--output", type=Path, default=Path("output/prompts"), help="folder")
    parser.add_argument("--note", default="", help="stands below each picture")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="of the config")
    return parser.parse_args()


def main() -> None:
    """Read the command line and write."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    arguments = parse_arguments()
    try:
        cfg = load_config(arguments.config_file, arguments.overrides)
        names = read_vocabulary(arguments.vocabulary) if arguments.vocabulary else ()
        subject = choose_subject(arguments.dataset, names, arguments.pictures, arguments.max_images)
        paths = report_prompts(cfg, arguments.weights, subject, arguments.output, arguments.note)
    except (OSError, ValueError) as error:
        sys.exit(f"Nothing can be shown: {error}")
    print("Wrote", *paths, sep="\n  ")


if __name__ == "__main__":
    main()
