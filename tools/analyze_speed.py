#!/usr/bin/env python
"""Measure how fast training samples are made, the model trains, or images are labeled, and why.

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
    """Run the command line; return 0, or 1 where the arguments make no sense."""
    options = _parse(arguments)
    from pixelclip.analysis import speed
    from pixelclip.utils.atomic_write import write_text

    first = speed.Configuration(options.config_file, tuple(options.opts))
    configurations = [first]
    if options.compare:
        words = shlex.split(options.compare)
        file = words.pop(0) if words and words[0].endswith((".yaml", ".yml")) else first.file
        configurations.append(speed.Configuration(file, (*first.overrides, *words)))
    try:
        if options.json and not os.path.isdir(os.path.dirname(os.path.abspath(options.json))):
            raise FileNotFoundError(f"the folder of {options.json} does not exist")
        result = speed.analyze_speed(
            options.command, configurations, options.warm_up, options.repeats, options.images
        )
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(speed.format_result(result))
    if options.json:
        write_text(options.json, json.dumps(result, indent=2) + "\n")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("data", "train", "eval"), help="what is measured")
    parser.add_argument("--config-file", default="configs/pixelclip_vitb16.yaml")
    parser.add_argument("--compare", help="a config file and/or KEY VALUE pairs, in quotes")
    parser.add_argument(
        "--images", "--photographs", help="folder in SA-1B's layout; default: generated ones"
    )
    parser.add_argument("--warm-up", type=int, default=3, help="steps that do not count")
    parser.add_argument("--repeats", type=int, default=10, help="steps that count")
    parser.add_argument("--json", help="file to write all results to")
    parser.add_argument("opts", nargs="*", help="KEY VALUE pairs, as in training")
    return parser.parse_intermixed_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
