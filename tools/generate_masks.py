#!/usr/bin/env python
"""Find masks in a folder of images and write them as SA-1B files to train on.

After an interruption, the same command resumes. Processes that torchrun or SLURM start, or that
have a --shard each, divide the images. The SAM family needs: pip install "pixelclip[masks]"
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 where masks were found or, of the status, all is done."""
    options = _parse(arguments)
    from pixelclip.mask_generation.generate import COPIES, find_status, generate_masks
    from pixelclip.modeling.inference_masks import build_mask_generator
    from pixelclip.utils.shards import find_shard

    shard = find_shard(options.shard)
    generator = build_mask_generator(
        options.generator, options.model, options.weights, options.clusters
    )
    if options.status:
        status = find_status(options.images, options.output, generator)
        print(status.describe(shard.count))
        return 0 if status.is_complete else 1
    summary = generate_masks(
        options.images, options.output, generator, options.link, options.workers, shard
    )
    if not shard.is_whole:
        print(f"{shard}:\n{summary}")
        print("Once --status says that all is done, the command without shards writes the summary.")
        return 0
    print(summary)
    if not summary.masks_per_image["most"]:
        raise ValueError("no mask was found in any image")
    print(f"Look at {options.output / 'contact_sheet.png'}; to train on the masks:")
    print(f"    export SAM_DATASETS={(options.output / COPIES).absolute()}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, help="folder of images")
    parser.add_argument(
        "--output", type=Path, default=Path("output/masks"), help="folder (%(default)s)"
    )
    parser.add_argument("--link", action="store_true", help="link to images, do not copy")
    parser.add_argument(
        "--generator",
        default="superpixels",
        help="%(default)s, mobile_sam, mobile_sam_grid, sam, sam_hq, sam2, dino or dinov2",
    )
    parser.add_argument("--model", default="", help="of Hugging Face's hub, a folder, or timm's")
    parser.add_argument("--weights", default="", help="file: MobileSAM, DINO or DINOv2")
    parser.add_argument("--clusters", type=int, default=16, help="regions of DINO (%(default)s)")
    parser.add_argument("--workers", type=int, help="processes; default: GPUs or cores")
    parser.add_argument(
        "--shard", help="3/64: the third of 64 shares; default: torchrun's or SLURM's"
    )
    parser.add_argument(
        "--status", action="store_true", help="only say what is done; exit code 1 if not everything"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    from cli import run

    sys.exit(run(main))
