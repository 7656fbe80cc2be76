"""The result of a :class:`pixelclip.Predictor` for one image."""

import functools
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pixelclip.inference.regions import DEFAULT_MIN_SHARE, Region, find_regions
from pixelclip.modeling.inference_views import ScoredImage, merge_views
from pixelclip.utils.atomic_write import atomic_writer
from pixelclip.utils.visualization import LegendEntry, add_legend, class_colors, overlay_labels

if TYPE_CHECKING:
    from supervision import Detections

_SMALL_SHARE = 0.005  # classes below it are not named in a legend


@dataclass(frozen=True)
class ClassShare:
    """How much of an image one class has.

    Attributes:
        index, name: of the class.
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

    def _repr_png_(self) -> bytes:
        """What notebooks show: :meth:`draw`'s image."""
        file = io.BytesIO()
        self.draw().save(file, format="PNG")
        return file.getvalue()

    @functools.cached_property
    def similarity(self) -> Tensor:
        """Cosines (K, H, W) float32 of every pixel with every class, on the CPU.

        Computed at first use and kept: 50 MB per class for an image of 12 megapixels.
        """
        return merge_views(*self._scored).cpu()

    @functools.cached_property
    def shares(self) -> tuple[ClassShare, ...]:
        """The classes that at least one pixel has, the largest share first."""
        labels = self.labels.flatten()  # (H * W,)
        counts = torch.bincount(labels, minlength=len(self.names))
        sums = torch.zeros(len(self.names), dtype=torch.float64)
        sums.index_add_(0, labels, self.best_similarity.flatten().double())
        shares = [
            ClassShare(index, self.names[index], count / len(labels), total / count)
            for index, (count, total) in enumerate(zip(counts.tolist(), sums.tolist(), strict=True))
            if count
        ]
        return tuple(sorted(shares, key=lambda share: -share.share))

    @functools.cached_property
    def regions(self) -> list[Region]:
        """The connected pixels of each class but the background, the largest region first."""
        regions = find_regions(self.labels.numpy(), self.best_similarity.numpy(), self.names)
        return [region for region in regions if region.index != self.background_index]

    def to_supervision(self, min_share: float = DEFAULT_MIN_SHARE) -> "Detections":
        """The regions with at least this share of the image, for the package ``supervision``.

        Their confidence is the mean cosine, and their ``data["class_name"]`` the name.
        """
        from supervision import Detections, mask_to_xyxy

        regions = [region for region in self.regions if region.share >= min_share]
        if not regions:
            return Detections.empty()
        masks = np.stack([region.mask for region in regions])  # (N, H, W)
        return Detections(
            xyxy=mask_to_xyxy(masks),
            mask=masks,
            class_id=np.array([region.index for region in regions]),
            confidence=np.array([region.similarity for region in regions], np.float32),
            data={"class_name": np.array([region.name for region in regions])},
        )

    def draw(self, opacity: float = 0.6, legend: bool = True) -> Image.Image:
        """The image with every class in its color; the background stays as it is.

        Args:
            opacity: 0 shows the image alone, 1 the colors alone.
            legend: add names and shares of the classes below; those under 0.5% are only counted.
        """
        colors = class_colors(self.names)
        drawn = overlay_labels(
            self.image, self.labels.numpy(), colors, opacity, self.background_index
        )
        return Image.fromarray(add_legend(drawn, self._legend()) if legend else drawn)

    def draw_frame(self) -> NDArray[np.uint8]:
        """An overlay whose legend has all names, so that it stays the same through a video."""
        image = np.asarray(self.draw(legend=False))
        if len(self.names) > 40:  # the legend would be larger than the image
            return image
        return add_legend(image, list(map(LegendEntry, self.names, self.legend_colors())))

    def legend_colors(self) -> list[list[int] | None]:
        """RGB colors of the names, None for the background."""
        colors: list[list[int] | None] = class_colors(self.names).tolist()
        if self.background_index is not None:
            colors[self.background_index] = None
        return colors

    def _legend(self) -> list[LegendEntry]:
        colors = self.legend_colors()
        large = [share for share in self.shares if share.share >= _SMALL_SHARE]
        entries = [LegendEntry(f"{one.name} {one.share:.1%}", colors[one.index]) for one in large]
        others = len(self.shares) - len(large)
        return entries + [LegendEntry(f"{others} below {_SMALL_SHARE:.1%}", None)] * bool(others)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`draw`'s image in the format of the suffix, such as .png or .jpg.

        Raises:
            ValueError: not a suffix of an image format.
            OSError: the file cannot be written; what stood there is untouched.
        """
        format = Image.registered_extensions().get(Path(path).suffix.lower())
        if format not in Image.SAVE:  # some, as .psd, are only read
            raise ValueError(f"{os.fspath(path)} has no suffix of an image; use .png or .jpg.")
        with atomic_writer(path) as file:
            self.draw().save(file, format=format, quality=92)  # a JPEG's letters stay clean

    def save_labels(self, path: str | os.PathLike[str]) -> None:
        """Write the class indices as a PNG that ``numpy.asarray(PIL.Image.open(path))`` reads.

        Up to 255 classes: 8 bits and a palette of :meth:`draw`'s colors, as in Pascal VOC's labels.
        More: 16 bits in gray.

        Raises:
            OSError: the file cannot be written; what stood there is untouched.
        """
        has_8_bits = len(self.names) <= 255  # label 255 is void by convention
        image = Image.fromarray(self.labels.numpy().astype(np.uint8 if has_8_bits else np.uint16))
        if has_8_bits:
            image.putpalette(class_colors(self.names).tobytes())
        with atomic_writer(path) as file:
            image.save(file, format="PNG")
