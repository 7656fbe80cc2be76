"""Read any image file, array or tensor as RGB pixels."""

import contextlib
import http.client
import io
import math
import os
import string
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageChops, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

# Of files that a folder of images is searched for.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
Pixels = NDArray[np.uint8]
ImageInput = str | os.PathLike[str] | Image.Image | NDArray[Any] | Tensor

# Images only: Pillow's other readers start programs (EPS) or decode formats nobody trains on.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
# What libjpeg computes straight from a block's coefficients and Pillow offers.
_JPEG_SCALES = (1 / 8, 1 / 4, 1 / 2)
_NUMBERS = "uint8, or other numbers in 0..255"
# Limits of an image that is given by its address: of a pause in its transfer, and of its size.
_DOWNLOAD_SECONDS = 10
_DOWNLOAD_BYTES = 200_000_000


class ImageReadError(ValueError):
    """A file that cannot be read as an image."""


class ImageFile:
    """An image file that is decoded when its pixels are asked for.

    Before, its ``size`` is known: (height, width) in pixels as a viewer shows the image, upright.

    Args:
        source: the content of the file, or its path.

    Raises:
        ImageReadError: the file is missing, empty, not an image, or a decompression bomb (more than
            twice ``PIL.Image.MAX_IMAGE_PIXELS``).
    """

    def __init__(self, source: bytes | str | os.PathLike[str]) -> None:
        self._name = "the image" if isinstance(source, bytes) else os.fspath(source)
        with _explained_errors(self._name):
            data = source if isinstance(source, bytes) else Path(source).read_bytes()
        if not data:
            raise ImageReadError(f"{self._name} is empty (0 bytes)")
        with _explained_errors(self._name):
            self._image = Image.open(io.BytesIO(data), formats=_FORMATS)
            if not _is_upright_jpeg(self._image):
                # Only after decoding is it sure what size these have.
                self._image.load()
                _turn_upright(self._image)
        self.size = (self._image.height, self._image.width)

    def decode(self, min_scale: float = 1.0) -> tuple[Image.Image, float]:
        """Decode the pixels; call it once.

        A JPEG can be decoded at 1/2, 1/4 or 1/8 of its sides, which is faster and gives about the
        means of the pixels that are left out.

        Args:
            min_scale: the smallest possible scale that is not below this one is taken.

        Returns:
            An image of mode RGB, and the scale at which it was decoded: a pixel of it covers
            1/scale pixels of the file, of which the last ones may lie outside.

        Raises:
            ImageReadError: the pixels cannot be decoded, for example because the file is truncated.
        """
        scale = next((scale for scale in _JPEG_SCALES if scale >= min_scale), 1.0)
        with _explained_errors(self._name):
            if scale < 1 and isinstance(self._image, JpegImageFile):
                # Rounded down, as Pillow takes the smallest scale with at least that many pixels.
                height, width = (max(1, math.floor(side * scale)) for side in self.size)
                drafted = self._image.draft(None, (width, height))
                scale = drafted[1][2] / self.size[1] if drafted else 1.0
            else:
                scale = 1.0
            self._image.load()
            return _to_rgb(self._image), scale


def read_rgb_image(source: bytes | str | os.PathLike[str]) -> Pixels:
    """Decode an image file, given by its content or path, into RGB pixels (H, W, 3), read-only.

    Grayscale, palette, CMYK and 1-bit images become RGB; 16-bit grayscale is scaled to 8 bits, not
    clipped; the EXIF orientation is applied. Transparency is dropped, as in Detectron2's
    ``read_image``: the colors that the file stores are kept, nothing is blended.

    Raises:
        ImageReadError: as :class:`ImageFile`, or the pixels cannot be decoded.
    """
    return np.asarray(ImageFile(source).decode()[0])


def to_rgb_pixels(image: ImageInput, channel_order: str = "RGB") -> Pixels:
    """RGB pixels (H, W, 3) uint8 of an image, upright.

    Args:
        image: the path of a file, or its https address; a PIL image, turned like a file as its
            EXIF orientation says; an array (H, W, 3), or (H, W) in gray; or a tensor (3, H, W).
            Values of arrays and tensors lie in 0..255 and are rounded to whole numbers.
        channel_order: "RGB", or "BGR" as OpenCV reads images, of an array or tensor.

    Raises:
        ImageReadError: a file, address or PIL image that cannot be read.
        TypeError: something else than these.
        ValueError: an unknown channel order, an array or tensor of another shape, without pixels or
            with values outside 0..255.
    """
    if channel_order not in ("RGB", "BGR"):
        raise ValueError(f"channel_order is {channel_order!r}; it must be 'RGB' or 'BGR'.")
    if is_address(image):
        return read_rgb_image(_download(str(image)))
    if isinstance(image, str | os.PathLike):
        return read_rgb_image(image)
    if isinstance(image, Image.Image):
        with _explained_errors("the image"):
            image = image.copy()  # reads the file of an image that was only opened
            _turn_upright(image)
            return _to_bytes(np.asarray(_to_rgb(image)))
    if not isinstance(image, np.ndarray | Tensor):
        kinds = "a path, a PIL image, an array (H, W, 3) or a tensor (3, H, W)"
        raise TypeError(f"An image is {kinds}; got {type(image).__name__}.")
    pixels = _to_bytes(_values(image))
    return pixels[:, :, ::-1] if channel_order == "BGR" else pixels


def is_address(image: object) -> bool:
    """Whether an image is given by its address in the web."""
    return isinstance(image, str) and image.startswith(("https://", "http://"))


def _download(address: str) -> bytes:
    # As a browser's address bar copies it, it may have blanks and letters that are not ASCII.
    quoted = urllib.parse.quote(address, safe=string.punctuation)
    # Some servers, as Wikimedia's, refuse the name that Python's library has.
    request = urllib.request.Request(quoted, headers={"User-Agent": "pixelclip"})
    try:
        with urllib.request.urlopen(request, timeout=_DOWNLOAD_SECONDS) as response:
            content = response.read(_DOWNLOAD_BYTES + 1)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ImageReadError(f"{address} cannot be downloaded: {error}") from error
    if len(content) > _DOWNLOAD_BYTES:
        raise ImageReadError(f"{address} has more than {_DOWNLOAD_BYTES // 10**6} MB")
    return content


def _values(image: NDArray[Any] | Tensor) -> NDArray[Any]:
    """An array or tensor as an array (H, W, 3) of any type."""
    shape = tuple(image.shape)
    if isinstance(image, Tensor):
        if len(shape) == 3 and shape[0] == 3:
            tensor = image.detach().cpu().permute(1, 2, 0)  # (3, H, W) -> (H, W, 3)
            # NumPy has no bfloat16.
            return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    elif len(shape) == 2:
        return np.repeat(image[:, :, None], 3, axis=2)
    elif len(shape) == 3 and shape[2] == 3:
        return image
    raise ValueError(
        f"The image has the shape {shape}; expected an array (H, W, 3), or (H, W) in gray, or a "
        "tensor (3, H, W). Give several images as a list, drop an alpha channel by "
        "image[:, :, :3], and turn one by image.transpose(1, 2, 0) or image.permute(2, 0, 1)."
    )


def _to_bytes(values: NDArray[Any]) -> Pixels:
    if 0 in values.shape:
        raise ValueError(f"The image has no pixels: {values.shape[0]} x {values.shape[1]}.")
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "iuf":
        raise ValueError(f"The image has values of type {values.dtype}; expected {_NUMBERS}.")
    low, high = values.min(), values.max()
    is_fraction = values.dtype.kind == "f" and 0 < high <= 1
    if not (low >= 0 and high <= 255) or is_fraction:  # written so that a NaN is refused
        remedy = " Multiply an image in 0..1 by 255." if is_fraction else ""
        raise ValueError(f"The image's values span {low} to {high}; expected {_NUMBERS}.{remedy}")
    return values.round().astype(np.uint8)


@contextlib.contextmanager
def _explained_errors(name: str) -> Iterator[None]:
    # Pillow's readers raise nearly anything on a damaged file, from OSError to IndexError.
    try:
        yield
    except Image.UnidentifiedImageError as error:
        problem = f"is not an image in one of the formats {', '.join(_FORMATS)}"
        raise ImageReadError(f"{name} {problem}") from error
    except FileNotFoundError as error:
        raise ImageReadError(f"{name} does not exist") from error
    except Exception as error:
        reason = getattr(error, "strerror", None)  # of the operating system
        problem = f"read: {reason}" if reason else f"decoded: {str(error) or type(error).__name__}"
        raise ImageReadError(f"{name} cannot be {problem}") from error


def _is_upright_jpeg(image: Image.Image) -> bool:
    """Whether the file's header says all about its size. A multi-picture JPEG is another format."""
    with contextlib.suppress(Exception):
        return image.format == "JPEG" and image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    return False


def _turn_upright(image: Image.Image) -> None:
    # The pixels are fine (loaded before); a viewer shows an image with corrupt EXIF as it is.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        low, high = values.min(), values.max()
        if low < 0 or high > 65_535:
            raise ValueError(f"its integer pixels span {low}..{high}; expected 0..65535")
        # 65535 / 257 = 255: this is v / 257 rounded.
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save it with 8 or 16 bits")
    elif image.mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        # Pillow inverts every JPEG's colors, as only Adobe's are stored inverted.
        image = ImageChops.invert(image)
    elif image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # straight to RGB, Pillow warns about transparency
    return image if image.mode == "RGB" else image.convert("RGB")
