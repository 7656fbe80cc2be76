#!/usr/bin/env python
"""Find masks in a folder of images and write them as SA-1B files to train on.

Interrupted, the same command resumes. SAM, SAM-HQ and SAM 2 need: pip install -e ".[masks]"
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 where masks were found."""
    options = _parse(arguments)
    from pixelclip.mask_generation.generate import COPIES, generate_masks
    from pixelclip.modeling.inference_masks import build_mask_generator

    try:
        generator = build_mask_generator(
            options.generator, options.model, options.weights, options.clusters
        )
        summary = generate_masks(
            options.images, options.output, generator, options.link, options.num_workers
        )
    except (OSError, ValueError, RuntimeError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped; the same command resumes.", file=sys.stderr)
        return 130
    print(summary)
    if not summary.masks_per_image["most"]:
        print("error: no mask was found in any image", file=sys.stderr)
        return 1
    print(f"Look at {options.output / 'contact_sheet.png'}; to train on the masks:")
    print(f"    export SAM_DATASETS={(options.output / COPIES).absolute()}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--link", action="store_true", help="link to images, do not copy")
    parser.add_argument(
        "--generator", default="superpixels", help="this one or sam, sam_hq, sam2, dino, dinov2"
    )
    parser.add_argument("--model", default="", help="of Hugging Face's hub, a folder, or timm's")
    parser.add_argument("--weights", default="", help="a file with the weights of DINO or DINOv2")
    parser.add_argument("--clusters", type=int, default=16, help="regions of DINO and DINOv2")
    parser.add_argument("--num-workers", type=int, help="processes; default: GPUs or cores")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
