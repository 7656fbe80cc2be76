#!/usr/bin/env python
"""Write learned class prompts as files of textual inversion, which diffusers loads."""

import argparse
import sys
from pathlib import Path


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", default="configs/pixelclip_vitl14.yaml")
    parser.add_argument("--weights", required=True, help="checkpoint")
    parser.add_argument("--output", type=Path, default=Path("output/words"), help="folder")
    parser.add_argument("--prompts", type=int, nargs="+", default=[], help="numbers; default: all")
    parser.add_argument(
        "--diffusion-model",
        type=Path,
        help="folder of a diffusion model, to compare its text encoder with the checkpoint's",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="of the config")
    return parser.parse_args()


def main() -> None:
    """Read the command line and write."""
    arguments = parse_arguments()

    from pixelclip.engine.setup import load_config
    from pixelclip.export.textual_inversion import export_prompts

    try:
        paths = export_prompts(
            load_config(arguments.config_file, arguments.overrides),
            arguments.weights,
            arguments.output,
            arguments.prompts,
            arguments.diffusion_model,
        )
    except (OSError, ValueError) as error:
        sys.exit(f"Nothing was exported: {error}")
    print(f"Wrote {len(paths) - 1} prompts and {paths[-1]}")


if __name__ == "__main__":
    main()
