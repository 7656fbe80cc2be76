"""The choice of a mask generator on a command line."""

import argparse

from pixelclip.mask_generation.generators import DEFAULT_MODELS, GeneratorChoice


def add_generator_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what :func:`read_generator_choice` reads, and ``--num-workers``."""
    parser.add_argument(
        "--generator", default="superpixels", help=f"{', '.join(DEFAULT_MODELS)}; default: first"
    )
    parser.add_argument("--model", default="", help="of Hugging Face's hub, a folder, or timm's")
    parser.add_argument("--weights", default="", help="a file with the weights of DINO or DINOv2")
    parser.add_argument("--clusters", type=int, default=16, help="regions of DINO and DINOv2")
    parser.add_argument("--num-workers", type=int, help="processes; default: GPUs or cores")


def read_generator_choice(options: argparse.Namespace) -> GeneratorChoice:
    """The generator that was chosen.

    Raises:
        ValueError, ModuleNotFoundError: see :class:`GeneratorChoice`.
    """
    return GeneratorChoice(options.generator, options.model, options.weights, options.clusters)
