"""Pretrain the tiny CLIP of the embedded world on captioned pictures.

The weights that PixelCLIP ships were made by this tool; docs/toy_world.md has the command.
"""

import argparse
import os
from dataclasses import fields
from pathlib import Path

from pixelclip.toy.pretraining import PretrainingSettings, pretrain


def main() -> None:
    """Read the command line and pretrain."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("output/toy_clip"))
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    for field in fields(PretrainingSettings):
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, type=type(field.default), default=field.default)
    arguments = vars(parser.parse_args())
    output, processes = arguments.pop("output"), arguments.pop("processes")
    print(pretrain(PretrainingSettings(**arguments), output, processes))


if __name__ == "__main__":
    main()
