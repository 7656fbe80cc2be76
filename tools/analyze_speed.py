#!/usr/bin/env python
"""Measure how fast training samples are made, the model trains, or images are labelled, and why.

Weights are random. Two configurations take turns, so that whatever else the machine does meets
both: give the other one's keys (or a config file) after --compare, in quotes.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence

from pixelclip.analysis.speed import COMMANDS, Configuration, analyze_speed
from pixelclip.analysis.speed_report import format_result, save_result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 1 where the arguments make no sense."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=COMMANDS, help="what is measured")
    parser.add_argument("--config-file", default="configs/pixelclip_vitb16.yaml")
    parser.add_argument("--compare", help="a config file and/or KEY VALUE pairs, in quotes")
    parser.add_argument("--photographs", help="folder in SA-1B's layout; default: generated ones")
    parser.add_argument("--warm-up", type=int, default=3, help="steps that do not count")
    parser.add_argument("--repeats", type=int, default=10, help="steps that count")
    parser.add_argument("--json", help="file to write all figures to")
    parser.add_argument("opts", nargs="*", help="KEY VALUE pairs, as in training")
    options = parser.parse_intermixed_args(arguments)
    first = Configuration(options.config_file, tuple(options.opts))
    configurations = [first]
    if options.compare:
        configurations.append(_other_configuration(first, options.compare))
    try:
        if options.json and not os.path.isdir(os.path.dirname(os.path.abspath(options.json))):
            raise FileNotFoundError(f"the folder of {options.json} does not exist")
        result = analyze_speed(
            options.command, configurations, options.warm_up, options.repeats, options.photographs
        )
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(format_result(result))
    if options.json:
        save_result(result, options.json)
    return 0


def _other_configuration(first: Configuration, compare: str) -> Configuration:
    """The first configuration with another file, with more overrides, or with both."""
    words = shlex.split(compare)
    file = words.pop(0) if words and words[0].endswith((".yaml", ".yml")) else first.file
    return Configuration(file, (*first.overrides, *words))


if __name__ == "__main__":
    sys.exit(main())
