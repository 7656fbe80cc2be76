#!/usr/bin/env python
"""Train PixelCLIP on images with masks; with --eval-only, evaluate it."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence


def build_parser(evaluate: bool) -> argparse.ArgumentParser:
    """The options of Detectron2's own train_net.py, and those of all PixelCLIP commands."""
    name, description = "train", "Train PixelCLIP."
    if evaluate:
        name, description = "evaluate", "Evaluate weights on DATASETS.TEST, in one table."
    parser = argparse.ArgumentParser(prog=f"pixelclip {name}", description=description)
    parser.set_defaults(resume=False, eval_only=evaluate)
    parser.add_argument(
        "--config-file",
        default="",
        metavar="FILE",
        help="config, such as configs/pixelclip_vitb16.yaml (default: that of --weights)",
    )
    parser.add_argument(
        "--weights", default="", metavar="W", help="a model's name, file, folder or address"
    )
    parser.add_argument(
        "--output", default="", metavar="DIR", help="folder to write to (default: OUTPUT_DIR)"
    )
    if not evaluate:
        parser.add_argument(
            "--resume", action="store_true", help="continue from the last checkpoint in --output"
        )
        parser.add_argument("--eval-only", action="store_true", help="evaluate, do not train")
    _add_launch_options(parser)
    _add_overrides(parser)
    return parser


def _add_launch_options(parser: argparse.ArgumentParser) -> None:
    # Each user has a port, so that two on one machine do not meet.
    port = 2**15 + 2**14 + os.getuid() % 2**14
    url = f"tcp://127.0.0.1:{port}"
    numbers = {
        "--num-gpus": (1, "GPUs per machine"),
        "--num-machines": (1, "machines"),
        "--machine-rank": (0, "number of this machine, from 0"),
    }
    for option, (default, text) in numbers.items():
        parser.add_argument(
            option, type=int, default=default, metavar="N", help=f"{text} (default: {default})"
        )
    parser.add_argument(
        "--dist-url", default=url, metavar="URL", help="of the first process (default: %(default)s)"
    )


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    text = "overrides of the config"
    parser.add_argument("--opts", nargs="*", default=[], metavar="KEY VALUE", help=text)
    parser.add_argument(
        "trailing", nargs=argparse.REMAINDER, metavar="KEY VALUE", help=f"{text}, without --opts"
    )


def parse_arguments(arguments: Sequence[str], evaluate: bool = False) -> argparse.Namespace:
    """Arguments as :func:`pixelclip.engine.run.run_command` takes them."""
    args = build_parser(evaluate).parse_args(arguments)
    args.opts = [*args.opts, *args.trailing]
    del args.trailing
    started = ["pixelclip", "train"]
    if "TORCHELASTIC_RUN_ID" in os.environ:
        started = ["torchrun", "...", "tools/train_net.py"]
    others = [word for word in arguments if word != "--resume"]
    args.resume_command = shlex.join([*started, "--resume", *others])
    return args


def main(arguments: Sequence[str] | None = None, evaluate: bool = False) -> int:
    """Run the command line, in one process or several.

    Args:
        arguments: those of the command line by default.
        evaluate: be ``pixelclip evaluate``, without the options of training.

    Returns:
        The exit code.
    """
    args = parse_arguments(sys.argv[1:] if arguments is None else arguments, evaluate)
    from pixelclip.engine.run import run_command  # takes seconds: not before --help

    return run_command(args)


def evaluate(arguments: Sequence[str] | None = None) -> int:
    """Evaluate weights on the benchmarks or your own labeled data, in one table."""
    return main(arguments, evaluate=True)


if __name__ == "__main__":
    from cli import run

    sys.exit(run(main))
