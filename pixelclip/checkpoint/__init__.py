"""Checkpoints: ours, the published ones by name or address, and conversions between them."""

from pixelclip.checkpoint.checkpointer import PixelCLIPCheckpointer, published_name, read_checkpoint
from pixelclip.checkpoint.model_zoo import ZooModel, get_model, list_models, register_model
from pixelclip.checkpoint.weights_download import fetch_weights

__all__ = [
    "PixelCLIPCheckpointer",
    "ZooModel",
    "fetch_weights",
    "get_model",
    "list_models",
    "published_name",
    "read_checkpoint",
    "register_model",
]
