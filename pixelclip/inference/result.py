"""What a :class:`pixelclip.Predictor` says about an image: labels, similarities, a picture."""

import functools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pixelclip.modeling.inference_views import ScoredImage, merge_views
from pixelclip.utils.atomic_write import atomic_writer
from pixelclip.utils.label_overlay import (
    LegendEntry,
    add_legend,
    overlay_labels,
    vocabulary_colours,
)
from pixelclip.utils.visualization import class_colours

# The largest class index that an 8-bit file of labels holds; 255 is void by custom.
_LAST_OF_8_BITS = 254
# Classes of smaller shares are not named in a legend.
_SMALL_SHARE = 0.005
# Above Pillow's own, so that the legend's letters stay clean; other formats pass over it.
_JPEG_QUALITY = 92


@dataclass(frozen=True)
class ClassShare:
    """How much of an image one class has.

    Attributes:
        index: of the class among the names.
        name: of the class.
        share: of the image's pixels, in 0..1.
        similarity: mean cosine of these pixels with the class, in -1..1.
    """

    index: int
    name: str
    share: float
    similarity: float


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """The classes of an image's pixels.

    Attributes:
        image: (H, W, 3) uint8 RGB, upright, of the size that was given.
        names: K class names; with a background, "background" is among them.
        labels: (H, W) int64 on the CPU, the index of each pixel's class.
        best_similarity: (H, W) float32 on the CPU, each pixel's cosine with its class, in -1..1.
            A pixel below the background threshold has the threshold here.
        background_index: which of the names is the background, if any.
    """

    image: NDArray[np.uint8]
    names: tuple[str, ...]
    labels: Tensor
    best_similarity: Tensor
    background_index: int | None
    _scored: ScoredImage

    def __repr__(self) -> str:
        """One line: the size and the classes, the largest first."""
        height, width = self.labels.shape
        shares = ", ".join(f"{share.name} {share.share:.1%}" for share in self.shares)
        return f"Prediction({width} x {height} pixels: {shares})"

    @functools.cached_property
    def similarity(self) -> Tensor:
        """Cosines (K, H, W) float32 of every pixel with every class, on the CPU.

        Made when it is first asked for, and kept: a photograph of 12 megapixels takes 50 MB for
        each class.
        """
        return merge_views(*self._scored).cpu()

    @functools.cached_property
    def shares(self) -> tuple[ClassShare, ...]:
        """The classes that at least one pixel has, the largest share first."""
        labels = self.labels.flatten()  # (H * W,)
        counts = torch.bincount(labels, minlength=len(self.names))
        sums = torch.zeros(len(self.names), dtype=torch.float64)
        sums.index_add_(0, labels, self.best_similarity.flatten().double())
        present = torch.nonzero(counts)[:, 0].tolist()
        shares = [
            ClassShare(
                index,
                self.names[index],
                counts[index].item() / len(labels),
                (sums[index] / counts[index]).item(),
            )
            for index in present
        ]
        return tuple(sorted(shares, key=lambda share: -share.share))

    def draw(self, opacity: float = 0.6, legend: bool = True) -> Image.Image:
        """The image with every class in a colour of its own; the background stays as it is.

        Args:
            opacity: 0 shows the image alone, 1 the colours alone.
            legend: write the names and shares of the classes below, but of those that have less
                than 0.5% only their number.

        Returns:
            An RGB image of the size of :attr:`image`, or larger by its legend.
        """
        colours = vocabulary_colours(len(self.names))
        picture = overlay_labels(
            self.image, self.labels.numpy(), colours, opacity, self.background_index
        )
        if legend:
            picture = add_legend(picture, self._legend(colours))
        return Image.fromarray(picture)

    def _legend(self, colours: NDArray[np.uint8]) -> list[LegendEntry]:
        """The classes of large shares one by one, and the number of the others."""
        large = [share for share in self.shares if share.share >= _SMALL_SHARE]
        entries = [self._entry(share, colours) for share in large]
        others = len(self.shares) - len(large)
        if others:
            entries.append(LegendEntry(f"{others} below {_SMALL_SHARE:.1%}", None))
        return entries

    def _entry(self, share: ClassShare, colours: NDArray[np.uint8]) -> LegendEntry:
        is_background = share.index == self.background_index
        red, green, blue = colours[share.index].tolist()
        colour = None if is_background else (red, green, blue)
        return LegendEntry(f"{share.name} {share.share:.1%}", colour)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`draw`'s picture; its suffix, such as .png or .jpg, says the format.

        Raises:
            ValueError: a suffix of no format of pictures.
            OSError: the file cannot be written; what stood there is untouched.
        """
        Image.init()
        suffix = Path(path).suffix.lower()
        if Image.EXTENSION.get(suffix) not in Image.SAVE:  # some, as .psd, are only read
            raise ValueError(f"{os.fspath(path)} has no suffix of a picture; use .png or .jpg.")
        with atomic_writer(path) as file:
            self.draw().save(file, format=Image.EXTENSION[suffix], quality=_JPEG_QUALITY)

    def save_labels(self, path: str | os.PathLike[str]) -> None:
        """Write the class indices as a PNG, which :attr:`names` belongs to.

        Up to 255 classes: 8 bits and a palette of :meth:`draw`'s colours, as in Pascal VOC's
        labels. More: 16 bits in grey. Both are read by ``numpy.asarray(PIL.Image.open(path))``.

        Raises:
            OSError: the file cannot be written; what stood there is untouched.
        """
        labels = self.labels.numpy()
        if len(self.names) > _LAST_OF_8_BITS + 1:
            picture = Image.fromarray(labels.astype(np.uint16))
        else:
            picture = Image.fromarray(labels.astype(np.uint8))
            picture.putpalette(class_colours(len(self.names)).tobytes())
        with atomic_writer(path) as file:
            picture.save(file, format="PNG")
