"""A segmented image as HTML, with the class below the pointer and a legend, and as files.

What the pointer needs is in a small image next to each large one: its red channel is the class,
green and blue are the high and the low byte of the cosine, from -1 (0) to 1 (65535).
"""

import base64
import html
import io
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pixelclip.utils.visualization import LegendEntry, add_legend, class_colors, overlay_labels
from pixelclip.web.models import OURS, LabelMap

# In label files: background, and classes that are switched off.
VOID_LABEL = 255
# Longer side of the image that a pointer reads.
_POINTER_SIDE = 640

TEMPLATE = '<div class="result">${value}</div><div class="tip" hidden></div>'

STYLE = """\
.result { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(14rem, 100%), 1fr)); }
.result figure { margin: 0; }
.result figcaption { font-weight: 600; padding-bottom: .25rem; }
.stage img.shown { width: 100%; display: block; border-radius: 6px; cursor: crosshair; }
.stage img.pixels { display: none; }
.legend { grid-column: 1 / -1; display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; }
.legend label { display: flex; align-items: center; gap: .4rem; cursor: pointer; }
.legend .color { width: 1rem; height: 1rem; border-radius: 3px; border: 1px solid #0006; }
.legend .share { opacity: .65; font-variant-numeric: tabular-nums; }
.legend label:has(input:not(:checked)) .color { background: none !important; }
.tip { position: fixed; z-index: 50; pointer-events: none; padding: .2rem .55rem; color: white;
  background: #111d; border-radius: 5px; font-variant-numeric: tabular-nums; }
"""

# Elements are looked up at each event, as a new result replaces them. The canvas holds one pixel.
SCRIPT = """\
const context = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
const tip = () => element.querySelector('.tip');
let switched = null;

function describe(stage, event) {
  const pixels = stage.querySelector('img.pixels');
  const box = stage.getBoundingClientRect();
  const column = Math.floor((event.clientX - box.left) / box.width * pixels.naturalWidth);
  const row = Math.floor((event.clientY - box.top) / box.height * pixels.naturalHeight);
  context.drawImage(pixels, -column, -row);
  const [label, high, low] = context.getImageData(0, 0, 1, 1).data;
  const cosine = (256 * high + low) / 65535 * 2 - 1;
  const text = JSON.parse(stage.dataset.names)[label] + ' ' + cosine.toFixed(3);
  return cosine < Number(stage.dataset.threshold) ? 'background (' + text + ')' : text;
}

element.addEventListener('pointermove', (event) => {
  const stage = event.target.closest('.stage');
  tip().hidden = !stage;
  if (stage) {
    tip().textContent = describe(stage, event);
    tip().style.left = event.clientX + 14 + 'px';
    tip().style.top = event.clientY + 14 + 'px';
  }
});
element.addEventListener('pointerleave', () => { tip().hidden = true; });
element.addEventListener('change', (event) => {
  switched = event.target.dataset.class;
  const off = [...element.querySelectorAll('.legend input')].filter((box) => !box.checked);
  trigger('toggle', {hidden: off.map((box) => Number(box.dataset.class))});
});
watch('value', () => {
  if (switched !== null) element.querySelector(`[data-class="${switched}"]`)?.focus();
});
"""

# Saves what it is given in the browser's folder of downloads; nothing of it is shown.
DOWNLOAD_SCRIPT = """\
watch('value', () => {
  const file = JSON.parse(props.value);
  const bytes = Uint8Array.from(atob(file.content), (letter) => letter.charCodeAt(0));
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([bytes], {type: 'image/png'}));
  link.download = file.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
});
"""


@dataclass(frozen=True)
class Segmentation:
    """An image with the label map of each model, and how it is shown.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        names: of the classes, at most 255.
        label_maps: by the name of the model, ``OURS`` first.
        threshold: pixels whose cosine is below are background.
        opacity: of the colors, in 0..1.
        hidden: indices of classes that are switched off.
    """

    image: NDArray[np.uint8]
    names: tuple[str, ...]
    label_maps: Mapping[str, LabelMap]
    threshold: float = -1.0
    opacity: float = 0.6
    hidden: frozenset[int] = frozenset()

    @property
    def colors(self) -> NDArray[np.uint8]:
        """Colors (C, 3) of the classes."""
        return class_colors(self.names)

    def similarity_range(self) -> tuple[float, float]:
        """Thresholds, in thousandths, below which no pixel and all pixels are background."""
        maps = [label_map.similarity for label_map in self.label_maps.values()]
        low, high = min(float(m.min()) for m in maps), max(float(m.max()) for m in maps)
        return math.floor(low * 1000) / 1000, math.floor(high * 1000 + 1) / 1000

    def shares(self) -> list[tuple[int, float]]:
        """Each class, the largest first, and the share of pixels that PixelCLIP gives it."""
        labels, similarity = self.label_maps[OURS]
        counts = np.bincount(labels[similarity >= self.threshold], minlength=len(self.names))
        shares = counts / labels.size
        order = np.argsort(-shares, kind="stable")
        return list(zip(order.tolist(), shares[order].tolist(), strict=True))

    def shown_labels(self, label_map: LabelMap) -> NDArray[np.uint8]:
        """Labels (H, W) with ``VOID_LABEL`` wherever no class is shown."""
        is_void = label_map.similarity < self.threshold
        is_void |= np.isin(label_map.labels, list(self.hidden))
        return np.where(is_void, np.uint8(VOID_LABEL), label_map.labels)

    def draw(self, label_map: LabelMap) -> NDArray[np.uint8]:
        """The image (H, W, 3) with the shown classes in their colors."""
        labels = self.shown_labels(label_map)
        return overlay_labels(self.image, labels, self.colors, self.opacity, VOID_LABEL)

    def encode_overlay(self) -> bytes:
        """PixelCLIP's result as it is shown, with a legend, as the content of a PNG file."""
        entries = []
        for index, share in self.shares():
            if share and index not in self.hidden:
                red, green, blue = self.colors[index].tolist()
                entries.append(LegendEntry(f"{self.names[index]} {share:.1%}", (red, green, blue)))
        return _encode(Image.fromarray(add_legend(self.draw(self.label_maps[OURS]), entries)))

    def encode_labels(self) -> bytes:
        """PixelCLIP's labels as they are shown, as the content of a PNG file with a palette.

        Its text "class_names" holds the names as JSON.
        """
        image = Image.fromarray(self.shown_labels(self.label_maps[OURS]))
        image.putpalette(self.colors.tobytes().ljust(3 * 256, b"\xff"))
        texts = PngInfo()
        texts.add_text("class_names", json.dumps(self.names))
        return _encode(image, pnginfo=texts)


def pack_download(name: str, content: bytes) -> str:
    """A PNG file for ``DOWNLOAD_SCRIPT``; never twice the same, or a second download would fail."""
    encoded = base64.b64encode(content).decode()
    return json.dumps({"name": name, "content": encoded, "time": time.time_ns()})


def show_segmentation(segmentation: Segmentation) -> str:
    """HTML of the result of every model, and of one legend for them."""
    figures = [_show_figure(segmentation, model) for model in segmentation.label_maps]
    return "".join([*figures, _show_legend(segmentation)])


def _show_figure(segmentation: Segmentation, model: str) -> str:
    label_map = segmentation.label_maps[model]
    shown = _as_data(segmentation.draw(label_map), "jpeg", quality=92)
    pixels = _as_data(pack_pixels(label_map), "png")
    names = html.escape(json.dumps(segmentation.names))
    return (
        f"<figure><figcaption>{html.escape(model)}</figcaption>"
        f'<div class="stage" data-names="{names}" data-threshold="{segmentation.threshold}">'
        f'<img class="shown" alt="classes by {html.escape(model)}" src="{shown}">'
        f'<img class="pixels" alt="" src="{pixels}"></div></figure>'
    )


def _show_legend(segmentation: Segmentation) -> str:
    entries = []
    for index, share in segmentation.shares():
        color = "rgb({}, {}, {})".format(*segmentation.colors[index])
        checked = "" if index in segmentation.hidden else " checked"
        entries.append(
            f'<label><input type="checkbox" data-class="{index}"{checked}>'
            f'<span class="color" style="background: {color}"></span>'
            f"<span>{html.escape(segmentation.names[index])}</span>"
            f'<span class="share">{share:.1%}</span></label>'
        )
    return f'<div class="legend">{"".join(entries)}</div>'


def pack_pixels(label_map: LabelMap) -> NDArray[np.uint8]:
    """Classes and cosines as an image (h, w, 3) for the pointer; see the top of this file."""
    step = -(-max(label_map.labels.shape) // _POINTER_SIDE)
    labels = label_map.labels[::step, ::step]
    cosines = label_map.similarity[::step, ::step].astype(np.float64)
    steps = ((cosines.clip(-1, 1) + 1) / 2 * 65535).round().astype(np.uint16)
    return np.stack([labels, steps >> 8, steps & 255], axis=-1).astype(np.uint8)


def _as_data(pixels: NDArray[np.uint8], kind: str, **options: int) -> str:
    content = base64.b64encode(_encode(Image.fromarray(pixels), kind, **options)).decode()
    return f"data:image/{kind};base64,{content}"


def _encode(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
