"""Read any photograph as RGB pixels."""

import contextlib
import io
import os

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageOps

# Photographs only: Pillow's other readers start programs (EPS) or decode formats nobody trains on.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")


class ImageReadError(ValueError):
    """A file that cannot be read as a photograph."""


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
        ImageReadError: the file is missing, empty, cut off, no image, or so large that Pillow takes
            it for a decompression bomb (more than twice ``PIL.Image.MAX_IMAGE_PIXELS``).
    """
    name = "the image" if isinstance(source, bytes) else os.fspath(source)
    if source == b"":
        raise ImageReadError("the image file is empty (0 bytes)")
    try:
        with Image.open(
            io.BytesIO(source) if isinstance(source, bytes) else source, formats=_FORMATS
        ) as image:
            image.load()
            _turn_upright(image)
            return np.asarray(_to_rgb(image))
    # Pillow's readers raise nearly anything on a damaged file, from OSError to IndexError.
    except Exception as error:
        raise ImageReadError(_explain(name, error)) from error


def _explain(name: str, error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return f"{name} is no image in one of the formats {', '.join(_FORMATS)}"
    return f"{name} cannot be decoded: {error or type(error).__name__}"


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
