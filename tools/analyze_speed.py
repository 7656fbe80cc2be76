#!/usr/bin/env python
"""Measure the speed of data loading, training or evaluation, and what it is made of.

Weights are random. Two configurations take turns, so that other work of the machine slows down
both: give the other one's keys (or a config file) after --compare, in quotes.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0."""
    options = _parse(arguments)
    from pixelclip.analysis import speed
    from pixelclip.utils.atomic_write import write_text

    first = speed.Configuration(options.config_file, tuple(options.opts))
    configurations = [first]
    if options.compare:
        words = shlex.split(options.compare)
        file = words.pop(0) if words and words[0].endswith((".yaml", ".yml")) else first.file
        configurations.append(speed.Configuration(file, (*first.overrides, *words)))
    if options.output and not os.path.isdir(os.path.dirname(os.path.abspath(options.output))):
        raise FileNotFoundError(f"the folder of {options.output} does not exist")
    result = speed.analyze_speed(
        options.command, configurations, options.warm_up, options.repeats, options.images
    )
    print(speed.format_result(result))
    if options.output:
        write_text(options.output, json.dumps(result, indent=2) + "\n")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("data", "train", "eval"), help="what is measured")
    parser.add_argument(
        "--config-file", default="configs/pixelclip_vitb16.yaml", help="of the model (%(default)s)"
    )
    parser.add_argument("--compare", help="a config file and/or KEY VALUE pairs, in quotes")
    parser.add_argument(
        "--images", help="folder in SA-1B's layout; default: generated ones"
    )
    parser.add_argument("--warm-up", type=int, default=3, help="not counted (%(default)s)")
    parser.add_argument("--repeats", type=int, default=10, help="steps (%(default)s)")
    parser.add_argument("--output", help="JSON file to write all results to")
    parser.add_argument("--opts", nargs="+", default=[], help="config keys and values: KEY VALUE")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    from cli import run

    sys.exit(run(main))
