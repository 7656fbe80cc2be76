#!/usr/bin/env python
"""Find masks in a folder of photographs and write them as SA-1B files to train on.

Broken off, the same command goes on. SAM, SAM-HQ and SAM 2 need: pip install -e ".[masks]"
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pixelclip.mask_generation.command_line import add_generator_arguments, read_generator_choice
from pixelclip.mask_generation.generate import generate_masks
from pixelclip.mask_generation.image_records import COPIES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 where masks were found."""
    options = _parse(arguments)
    try:
        choice = read_generator_choice(options)
        summary = generate_masks(
            options.images, options.output, choice, options.link, options.num_workers
        )
    except (OSError, ValueError, RuntimeError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped; the same command goes on.", file=sys.stderr)
        return 130
    print(summary)
    if not summary.masks_per_photograph["most"]:
        print("error: no mask was found in any photograph", file=sys.stderr)
        return 1
    print(f"Look at {options.output / 'contact_sheet.png'}; to train on the masks:")
    print(f"    export SAM_DATASETS={(options.output / COPIES).absolute()}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--link", action="store_true", help="link to photographs, do not copy")
    add_generator_arguments(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
