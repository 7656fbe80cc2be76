"""Checkpoints: ours, the published ones, and conversions between them."""

from pixelclip.checkpoint.checkpointer import PixelCLIPCheckpointer, published_name, read_checkpoint

__all__ = ["PixelCLIPCheckpointer", "published_name", "read_checkpoint"]
