"""What a person asks the page for: a picture and words, within limits."""

import math
import os
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelclip.data.image_reading import ImageReadError, read_rgb_image
from pixelclip.data.vocabularies import SYNONYM_SEPARATOR

_KINDS = "JPEG, PNG, WebP, TIFF or BMP"
# Labels are of 8 bits, and 255 is no class.
_MOST_CLASSES = 255


class RequestError(ValueError):
    """Something that the page cannot do; the text is shown to the person who asked."""


@dataclass(frozen=True)
class Limits:
    """What one request may cost.

    Attributes:
        upload_megabytes: size of a picture's file, in 10**6 bytes.
        megapixels: size of a picture, in 10**6 pixels.
        working_side: a larger picture is scaled down until its longer side has so many pixels.
        words: number of classes, at most 255: labels have 8 bits, and one stands for no class.
        word_length: of a class with its synonyms, in characters.
        seconds: that a picture may take.

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
        if self.words > _MOST_CLASSES:
            raise ValueError(
                f"The limit words is {self.words}; expected 1 to {_MOST_CLASSES}, as the labels "
                "have 8 bits."
            )


def parse_words(text: str, limits: Limits) -> tuple[str, ...]:
    """Class names out of what was typed.

    Classes are separated by commas or line breaks, synonyms of one class by slashes; of a class
    that is named twice the first one counts.

    >>> parse_words("sky, sofa / couch,\\n sky", Limits())
    ('sky', 'sofa, couch')

    Raises:
        RequestError: no word, too many, or too long a one.
    """
    longest = limits.words * (limits.word_length + 2)
    if len(text) > longest:
        raise RequestError(f"The text has {len(text)} characters; at most {longest} are possible.")
    classes = [_join_synonyms(part) for part in re.split(r"[,\n]", text)]
    names = tuple(dict.fromkeys(name for name in classes if name))
    if not names:
        raise RequestError("Type at least one word, such as: sky, grass, house.")
    if len(names) > limits.words:
        raise RequestError(f"These are {len(names)} classes; at most {limits.words} are possible.")
    for name in names:
        if len(name) > limits.word_length:
            raise RequestError(
                f"The class “{name[:30]}...” has {len(name)} characters; at most "
                f"{limits.word_length} are possible. Separate classes by commas."
            )
    return names


def _join_synonyms(text: str) -> str:
    words = (" ".join(word.split()) for word in text.split("/"))
    return SYNONYM_SEPARATOR.join(word for word in words if word)


def read_picture(path: str | None, limits: Limits) -> NDArray[np.uint8]:
    """RGB pixels (H, W, 3) of an uploaded file, upright, scaled down to the working size.

    The size is read from the file's header: a picture that is too large is never decoded.

    Raises:
        RequestError: there is no file, it is no picture that can be read, or it is too large.
    """
    if path is None:
        raise RequestError("Choose a picture first: drop one into the field, or click an example.")
    try:
        megabytes = os.path.getsize(path) / 1e6
    except FileNotFoundError as error:
        raise RequestError("The picture is no longer there: choose it again.") from error
    if megabytes > limits.upload_megabytes:
        raise RequestError(
            f"The file has {megabytes:.1f} MB; at most {limits.upload_megabytes:g} are possible."
        )
    _check_pixels(path, limits)
    try:
        picture = Image.fromarray(read_rgb_image(path))
    except ImageReadError as error:
        raise RequestError(
            f"The picture cannot be read: is its file whole, and a {_KINDS}?"
        ) from error
    picture.thumbnail((limits.working_side, limits.working_side), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _check_pixels(path: str, limits: Limits) -> None:
    try:
        with Image.open(path) as image:
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise RequestError(
            f"The picture is too large; at most {limits.megapixels:g} megapixels are possible."
        ) from error
    except Exception as error:  # Pillow's readers raise nearly anything on a damaged file
        raise RequestError(f"This file is no picture; expected a {_KINDS}.") from error
    if width * height > limits.megapixels * 1e6:
        raise RequestError(
            f"The picture has {width} x {height} pixels, that is "
            f"{width * height / 1e6:.1f} megapixels; at most {limits.megapixels:g} are possible."
        )
