"""Read any photograph as RGB pixels."""

import contextlib
import io
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageChops, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

# Photographs only: Pillow's other readers start programs (EPS) or decode formats nobody trains on.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
# What libjpeg computes straight from a block's coefficients and Pillow offers.
_JPEG_SCALES = (1 / 8, 1 / 4, 1 / 2)


class ImageReadError(ValueError):
    """A file that cannot be read as a photograph."""


class Photograph:
    """An image file that is decoded when its pixels are asked for; its size is known before.

    Attributes:
        size: (height, width) in pixels as a viewer shows the image, upright.

    Args:
        source: the content of the file, or its path.

    Raises:
        ImageReadError: the file is missing, empty, no image, or so large that Pillow takes it for a
            decompression bomb (more than twice ``PIL.Image.MAX_IMAGE_PIXELS``).
    """

    def __init__(self, source: bytes | str | os.PathLike[str]) -> None:
        self._name = "the image" if isinstance(source, bytes) else os.fspath(source)
        if source == b"":
            raise ImageReadError("the image file is empty (0 bytes)")
        with self._explained_errors():
            data = source if isinstance(source, bytes) else Path(source).read_bytes()
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
            min_scale: the smallest scale that is wanted; the smallest possible one that is not
                below it is taken. With 1 (the default), all pixels are decoded.

        Returns:
            An image of mode RGB, and the scale at which it was decoded: a pixel of it covers
            1/scale pixels of the file, of which the last ones may lie outside.

        Raises:
            ImageReadError: the pixels cannot be decoded, for example because the file is cut off.
        """
        with self._explained_errors():
            scale = self._choose_scale(min_scale)
            self._image.load()
            return _to_rgb(self._image), scale

    def _choose_scale(self, min_scale: float) -> float:
        scale = next((s for s in _JPEG_SCALES if s >= min_scale), 1.0)
        if scale == 1.0 or not isinstance(self._image, JpegImageFile):
            return 1.0
        height, width = self.size
        # Rounded down, as Pillow takes the smallest scale that gives at least so many pixels.
        smallest = (max(1, math.floor(width * scale)), max(1, math.floor(height * scale)))
        drafted = self._image.draft(None, smallest)
        return drafted[1][2] / width if drafted else 1.0

    @contextlib.contextmanager
    def _explained_errors(self) -> Iterator[None]:
        # Pillow's readers raise nearly anything on a damaged file, from OSError to IndexError.
        try:
            yield
        except Exception as error:
            raise ImageReadError(_explain(self._name, error)) from error


def read_rgb_image(source: bytes | str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Decode an image file into RGB pixels as a viewer shows it upright.

    Grayscale, palette, CMYK and 1-bit images become RGB; 16-bit grayscale is scaled to 8 bits, not
    clipped; the EXIF orientation is applied. Transparency is dropped, as in Detectron2's
    ``read_image``: the colours that the file stores are kept, nothing is blended.

    Args:
        source: the content of the file, or its path.

    Returns:
        (H, W, 3) uint8 array, read-only.

    Raises:
        ImageReadError: as :class:`Photograph`, or the pixels cannot be decoded.
    """
    return np.asarray(Photograph(source).decode()[0])


def convert_to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """RGB pixels (H, W, 3) uint8 of a PIL image, as :func:`read_rgb_image` gives them for a file.

    The image itself stays as it is.

    Raises:
        ImageReadError: it has no pixels, its file is damaged, or its pixels are floating-point
            numbers.
    """
    try:
        image = image.copy()  # reads the file of an image that was only opened
        _turn_upright(image)
        pixels = np.asarray(_to_rgb(image))
    except Exception as error:  # Pillow's readers raise nearly anything on a damaged file
        raise ImageReadError(_explain("the image", error)) from error
    if not pixels.size:
        raise ImageReadError(f"the image has no pixels: {image.width} x {image.height}")
    return pixels


def _explain(name: str, error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return f"{name} is no image in one of the formats {', '.join(_FORMATS)}"
    return f"{name} cannot be decoded: {error or type(error).__name__}"


def _is_upright_jpeg(image: Image.Image) -> bool:
    """Whether the file's header says all about its size. A multi-picture JPEG is another format."""
    with contextlib.suppress(Exception):
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        return image.format == "JPEG" and orientation == 1
    return False


def _turn_upright(image: Image.Image) -> None:
    # The pixels are fine (loaded before); a viewer shows an image with broken EXIF as it is.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        return _sixteen_bits_to_eight(image).convert("RGB")
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save it with 8 or 16 bits")
    if image.mode == "CMYK":
        return _adobe_cmyk(image).convert("RGB")
    if image.mode in ("P", "PA"):
        # Straight to RGB, Pillow warns about palettes with transparency.
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _sixteen_bits_to_eight(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65_535:
        raise ValueError(
            f"its integer pixels span {values.min()}..{values.max()}; expected 0..65535"
        )
    # 65535 / 257 = 255: this is v / 257 rounded.
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _adobe_cmyk(image: Image.Image) -> Image.Image:
    """Undo Pillow's inversion where a JPEG does not say that it is Adobe's (inverted) CMYK."""
    is_plain = image.format in ("JPEG", "MPO") and "adobe" not in image.info
    return ImageChops.invert(image) if is_plain else image
