#!/usr/bin/env python
"""Write learned class prompts as files of textual inversion, which diffusers loads."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", required=True, help="a checkpoint")
    parser.add_argument("--config-file", default="", help="default: the one of the weights")
    parser.add_argument(
        "--output", type=Path, default=Path("output/words"), help="folder (%(default)s)"
    )
    parser.add_argument("--prompts", type=int, nargs="+", default=[], help="numbers; default: all")
    parser.add_argument(
        "--diffusion-model",
        type=Path,
        help="folder of a diffusion model, to compare its text encoder with the checkpoint's",
    )
    parser.add_argument("--opts", nargs="+", default=[], help="config keys and values: KEY VALUE")
    options = parser.parse_args(arguments)

    from pixelclip.engine.setup import load_config
    from pixelclip.export.textual_inversion import export_prompts

    cfg = load_config(options.config_file, options.opts, options.weights)
    paths = export_prompts(
        cfg, cfg.MODEL.WEIGHTS, options.output, options.prompts, options.diffusion_model
    )
    print(f"Wrote {len(paths) - 1} prompts and {paths[-1]}")
    return 0


if __name__ == "__main__":
    from cli import run

    sys.exit(run(main))
