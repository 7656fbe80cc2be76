#!/usr/bin/env python
"""Compare a generator's masks with those of a data set, such as people's."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, required=True, help="tars, or images with JSON")
    parser.add_argument(
        "--generator",
        default="superpixels",
        help="%(default)s, mobile_sam, mobile_sam_grid, sam, sam_hq, sam2, dino or dinov2",
    )
    parser.add_argument("--model", default="", help="of Hugging Face's hub, a folder, or timm's")
    parser.add_argument("--weights", default="", help="file: MobileSAM, DINO or DINOv2")
    parser.add_argument("--clusters", type=int, default=16, help="regions of DINO (%(default)s)")
    parser.add_argument("--workers", type=int, help="processes; default: GPUs or cores")
    options = parser.parse_args(arguments)
    from pixelclip.mask_generation.overlap import measure_overlap
    from pixelclip.modeling.inference_masks import build_mask_generator

    settings = options.model, options.weights, options.clusters
    generator = build_mask_generator(options.generator, *settings)
    print(measure_overlap(options.reference, generator, options.workers))
    return 0


if __name__ == "__main__":
    from cli import run

    sys.exit(run(main))
