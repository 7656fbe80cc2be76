"""Any image that a person may hand over, as RGB pixels."""

import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pixelclip.data.image_reading import convert_to_rgb, read_rgb_image

ImageInput = str | os.PathLike[str] | Image.Image | NDArray[Any] | Tensor

CHANNEL_ORDERS = ("RGB", "BGR")

_NUMBERS = "uint8, or other numbers in 0..255"


def to_rgb_pixels(image: ImageInput, channel_order: str = "RGB") -> NDArray[np.uint8]:
    """RGB pixels (H, W, 3) uint8 of an image, upright.

    Args:
        image: the path of a file; a PIL image (like a file, it is turned as its EXIF orientation
            says); an array (H, W, 3), or (H, W) in grey; or a tensor (3, H, W). Values of
            arrays and tensors lie in 0..255 and are rounded to whole numbers.
        channel_order: "RGB", or "BGR" as OpenCV reads images, of an array or tensor. Files and PIL
            images say it themselves.

    Raises:
        ImageReadError: a file that cannot be read as an image.
        TypeError: something else than these.
        ValueError: an unknown channel order, an array or tensor of another shape, without pixels or
            with values outside 0..255.
    """
    if channel_order not in CHANNEL_ORDERS:
        raise ValueError(
            f"channel_order is {channel_order!r}; it must be one of {', '.join(CHANNEL_ORDERS)}."
        )
    if isinstance(image, str | os.PathLike):
        return read_rgb_image(image)
    if isinstance(image, Image.Image):
        return convert_to_rgb(image)
    if isinstance(image, Tensor):
        values = _tensor_values(image)
    elif isinstance(image, np.ndarray):
        values = _array_values(image)
    else:
        raise TypeError(
            f"An image is a path, a PIL image, an array (H, W, 3) or a tensor (3, H, W); got "
            f"{type(image).__name__}."
        )
    pixels = _to_bytes(values)
    return pixels[:, :, ::-1] if channel_order == "BGR" else pixels


def _tensor_values(image: Tensor) -> NDArray[Any]:
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(
            f"The image is a tensor of shape {tuple(image.shape)}; expected (3, H, W). Give "
            "several as a list, and an image (H, W, 3) as image.permute(2, 0, 1)."
        )
    tensor = image.detach().cpu()
    if tensor.dtype == torch.bfloat16:  # NumPy has no such type
        tensor = tensor.float()
    return tensor.permute(1, 2, 0).numpy()  # (3, H, W) -> (H, W, 3)


def _array_values(image: NDArray[Any]) -> NDArray[Any]:
    if image.ndim == 2:
        return np.repeat(image[:, :, None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"The image is an array of shape {image.shape}; expected (H, W, 3), or (H, W) in grey. "
            "Give several images as a list, drop an alpha channel by image[:, :, :3], and turn "
            "(3, H, W) by image.transpose(1, 2, 0)."
        )
    return image


def _to_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    if 0 in values.shape:
        raise ValueError(f"The image has no pixels: {values.shape[0]} x {values.shape[1]}.")
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "iuf":
        raise ValueError(f"The image has values of type {values.dtype}; expected {_NUMBERS}.")
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 255):  # written so that a NaN is refused
        raise ValueError(f"The image's values span {low} to {high}; expected {_NUMBERS}.")
    if values.dtype.kind == "f" and 0 < high <= 1:
        raise ValueError(
            f"The image's values span {low} to {high}; expected {_NUMBERS}. Multiply an image in "
            "0..1 by 255."
        )
    return values.round().astype(np.uint8)
