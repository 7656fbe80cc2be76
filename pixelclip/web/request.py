"""What a visitor asks of the page: an uploaded image and words, within limits.

Gradio trusts browsers too much: it checks the path of a file only where a message says that it
names one, and it fetches a path that is an address.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelclip.data.images import ImageReadError, read_rgb_image
from pixelclip.data.vocabularies import parse_words

_KINDS = "JPEG, PNG, WebP, TIFF or BMP"
_NOT_UPLOADED = "This image was not uploaded to this page: choose a file."


class RequestError(ValueError):
    """Something that the page cannot do; the text is shown to the visitor."""


@dataclass(frozen=True)
class Limits:
    """What one request may cost.

    Attributes:
        upload_megabytes: size of an image file, in 10**6 bytes.
        megapixels: size of an image, in 10**6 pixels.
        working_side: length in pixels to which the longer side of a larger image is scaled down.
        words: number of classes, at most 255: labels have 8 bits, and one stands for no class.
        word_length: of a class with its synonyms, in characters.
        seconds: that an image may take.

    Raises:
        ValueError: a limit is not positive and finite, or there are too many words.
    """

    upload_megabytes: float = 20.0
    megapixels: float = 40.0
    working_side: int = 1280
    words: int = 100
    word_length: int = 80
    seconds: float = 60.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < math.inf:
                raise ValueError(f"The limit {name} is {value}; expected a positive number.")
        if self.words > 255:
            raise ValueError(f"The limit words is {self.words}; expected 1 to 255.")


def read_words(text: str, limits: Limits) -> tuple[str, ...]:
    """Class names out of what was typed, see :func:`pixelclip.data.vocabularies.parse_words`.

    Raises:
        RequestError: no words, too many, too long ones, or a class that is given twice.
    """
    longest = limits.words * (limits.word_length + 2)
    if len(text) > longest:
        raise RequestError(f"The text has {len(text)} characters; at most {longest} are possible.")
    if not text.strip(",/ \t\r\n"):
        raise RequestError("Type at least one word, such as: sky, grass, house.")
    try:
        names = parse_words([text])
    except ValueError as error:
        raise RequestError(str(error)) from error
    if len(names) > limits.words:
        raise RequestError(f"These are {len(names)} classes; at most {limits.words} are possible.")
    for name in names:
        if len(name) > limits.word_length:
            raise RequestError(
                f"The class “{name[:30]}...” has {len(name)} characters; at most "
                f"{limits.word_length} are possible. Separate classes by commas."
            )
    return names


def read_image(path: str | None, limits: Limits) -> NDArray[np.uint8]:
    """RGB pixels (H, W, 3) of an uploaded file, upright, scaled down to the working size.

    The size is read from the file's header: an image that is too large is never decoded.

    Raises:
        RequestError: there is no file, it cannot be read as an image, or it is too large.
    """
    if path is None:
        raise RequestError("Choose an image first: drop it into the field, or click the field.")
    try:
        megabytes = os.path.getsize(path) / 1e6
    except FileNotFoundError as error:
        raise RequestError("The image is no longer there: choose it again.") from error
    if megabytes > limits.upload_megabytes:
        raise RequestError(
            f"The file has {megabytes:.1f} MB; at most {limits.upload_megabytes:g} are possible."
        )
    _check_size(path, limits)
    try:
        image = Image.fromarray(read_rgb_image(path))
    except ImageReadError as error:
        text = f"The image cannot be read: is its file whole, and a {_KINDS}?"
        raise RequestError(text) from error
    image.thumbnail((limits.working_side, limits.working_side), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _check_size(path: str, limits: Limits) -> None:
    most = f"at most {limits.megapixels:g} megapixels are possible."
    try:
        with Image.open(path) as image:
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise RequestError(f"The image is too large; {most}") from error
    except Exception as error:  # Pillow's readers raise nearly anything on a damaged file
        raise RequestError(f"This file is not an image; expected a {_KINDS}.") from error
    if width * height > limits.megapixels * 1e6:
        raise RequestError(f"The image has {width} x {height} pixels; {most}")


def find_upload(path: str, folder: str) -> str:
    """The real path of a file in the folder of uploads, which may be gone by now.

    Raises:
        RequestError: the path leads out of the folder, also by a link, or is not a regular file.
    """
    try:
        found = Path(path).resolve()
        is_below = found.is_relative_to(Path(folder).resolve())
        if is_below and (found.is_file() or not found.exists()):
            return str(found)
    except (OSError, ValueError, RuntimeError):  # too long, with a zero byte, or a loop of links
        pass
    raise RequestError(_NOT_UPLOADED)


def refuse_addresses(component: Any) -> None:
    """Make a component of Gradio refuse to fetch what a browser names by an address.

    All components need this: Gradio looks for files in all that a browser sends for any of them.
    """
    move_to_cache = component.async_move_resource_to_block_cache

    async def move_files_only(path: Any) -> Any:
        if path is not None and str(path).lower().startswith(("http:", "https:")):
            raise RequestError(_NOT_UPLOADED)
        return await move_to_cache(path)

    component.async_move_resource_to_block_cache = move_files_only
