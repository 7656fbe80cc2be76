"""A segmented picture that can be looked at in different ways without the model."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pixelclip.inference.result import Prediction
from pixelclip.utils.label_overlay import LegendEntry, add_legend, overlay_labels
from pixelclip.utils.visualization import Picture, class_colours

# In label files: background, and classes that are switched off. No vocabulary of the page has as
# many classes.
VOID_LABEL = 255


@dataclass(frozen=True)
class LabelMap:
    """What one model says about every pixel.

    Attributes:
        labels: (H, W) uint8, the most similar class.
        similarity: (H, W) float32, the cosine with that class, in -1..1.
    """

    labels: NDArray[np.uint8]
    similarity: NDArray[np.float32]

    @classmethod
    def of(cls, prediction: Prediction) -> "LabelMap":
        """The label map of a prediction without a background class."""
        labels = prediction.labels.numpy().astype(np.uint8)
        return cls(labels, prediction.best_similarity.float().numpy())


@dataclass(frozen=True)
class View:
    """How a segmented picture is shown.

    Attributes:
        threshold: pixels whose cosine is below are background.
        opacity: of the colours, in 0..1.
        hidden: indices of classes that are switched off.
    """

    threshold: float = -1.0
    opacity: float = 0.6
    hidden: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Segmentation:
    """A picture with the label map of each model.

    Attributes:
        picture: (H, W, 3) RGB.
        names: of the classes, at most 255.
        label_maps: by the name of the model, PixelCLIP's first.
        view: how it is shown.
    """

    picture: Picture
    names: tuple[str, ...]
    label_maps: Mapping[str, LabelMap]
    view: View = field(default_factory=View)

    @property
    def main(self) -> LabelMap:
        """PixelCLIP's label map."""
        return next(iter(self.label_maps.values()))

    @property
    def colours(self) -> NDArray[np.uint8]:
        """Colours (C, 3) of the classes."""
        return class_colours(len(self.names))

    def similarity_range(self) -> tuple[float, float]:
        """Thresholds, in thousandths, below which no pixel and all pixels are background."""
        maps = [label_map.similarity for label_map in self.label_maps.values()]
        low, high = min(float(m.min()) for m in maps), max(float(m.max()) for m in maps)
        return math.floor(low * 1000) / 1000, math.floor(high * 1000 + 1) / 1000

    def shown_labels(self, label_map: LabelMap) -> NDArray[np.uint8]:
        """Labels (H, W) with ``VOID_LABEL`` wherever the view shows no class."""
        is_void = label_map.similarity < self.view.threshold
        is_void |= np.isin(label_map.labels, list(self.view.hidden))
        return np.where(is_void, np.uint8(VOID_LABEL), label_map.labels)

    def draw(self, label_map: LabelMap) -> Picture:
        """The picture (H, W, 3) with the shown classes in their colours."""
        labels = self.shown_labels(label_map)
        return overlay_labels(
            self.picture, labels, self.colours, self.view.opacity, clear_class=VOID_LABEL
        )

    def shares(self, label_map: LabelMap) -> NDArray[np.float64]:
        """Share (C,) of the pixels that each class has above the threshold, hidden or not."""
        labels = label_map.labels[label_map.similarity >= self.view.threshold]
        counts = np.bincount(labels, minlength=len(self.names))
        return counts / label_map.labels.size

    def encode_overlay(self) -> bytes:
        """PixelCLIP's result as it is shown, with a legend, as a PNG file's content."""
        labels = self.shown_labels(self.main)
        picture = add_legend(self.draw(self.main), self._legend(labels))
        return _encode_png(Image.fromarray(picture))

    def encode_labels(self) -> bytes:
        """PixelCLIP's labels as they are shown, as a PNG file's content.

        8 bits with a palette: the indices of ``names``, which stand as JSON in the file's text
        "class_names", and ``VOID_LABEL`` where no class is shown.
        """
        image = Image.fromarray(self.shown_labels(self.main))
        palette = np.full((256, 3), 255, np.uint8)
        palette[: len(self.names)] = self.colours
        image.putpalette(palette.tobytes())
        names = PngInfo()
        names.add_text("class_names", json.dumps(self.names))
        return _encode_png(image, names)

    def _legend(self, labels: NDArray[np.uint8]) -> Sequence[LegendEntry]:
        counts = np.bincount(labels.ravel(), minlength=len(self.names))[: len(self.names)]
        entries = []
        for index in np.argsort(-counts, kind="stable"):
            if counts[index]:
                red, green, blue = self.colours[index].tolist()
                text = f"{self.names[index]} {counts[index] / labels.size:.1%}"
                entries.append(LegendEntry(text, (red, green, blue)))
        return entries


def _encode_png(image: Image.Image, texts: PngInfo | None = None) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=texts)
    return buffer.getvalue()
