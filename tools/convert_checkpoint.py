#!/usr/bin/env python
"""Convert a checkpoint: to other layouts, or to CLIP for transformers or open_clip."""

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="a model's name, file, folder or address")
    parser.add_argument("target", help="the file to write; a new folder for the last two layouts")
    layouts = ("ours", "published", "inference", "transformers", "open_clip")
    parser.add_argument(
        "--to",
        choices=layouts,
        required=True,
        help="inference: no teacher, no mask decoder; transformers, open_clip: the CLIP alone",
    )
    parser.add_argument("--half", action="store_true", help="16-bit weights: half the size")
    parser.add_argument(
        "--config-file", default="", help="for the last two layouts; default: the checkpoint's"
    )
    options = parser.parse_args(arguments)
    if options.config_file and options.to in layouts[:3]:
        parser.error(f"--config-file has no effect with --to {options.to}: leave it out")

    from pixelclip.checkpoint.conversion import convert_checkpoint

    done = convert_checkpoint(
        options.source, options.target, options.to, options.half, options.config_file
    )
    before, after = done.source_bytes / 1e6, done.target_bytes / 1e6
    print(f"{options.source}: {before:.1f} MB -> {options.target}: {after:.1f} MB")
    left_out = f"; left out: {', '.join(done.left_out)}" if done.left_out else ""
    print(f"{done.tensors} tensors{left_out}")
    return 0


if __name__ == "__main__":
    from cli import run

    sys.exit(run(main))
