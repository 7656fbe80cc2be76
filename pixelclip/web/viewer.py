"""The result as HTML: pictures that name the class under the pointer, and a legend with switches.

What a pointer needs lies in a small picture beside each large one: its red channel is the class,
green and blue are the high and the low byte of the cosine, from -1 (0) to 1 (65535).
"""

import base64
import html
import io
import itertools
import json

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelclip.web.segmentation import LabelMap, Segmentation

# Longer side of the picture that a pointer reads.
_POINTER_SIDE = 640

TEMPLATE = '<div class="result">${value}</div><div class="tip" hidden></div>'

STYLE = """\
.result { display: flex; flex-wrap: wrap; gap: 1rem; }
.result figure { flex: 1 1 14rem; margin: 0; }
.result figcaption { font-weight: 600; padding-bottom: .25rem; }
.stage img.shown { width: 100%; display: block; border-radius: 6px; cursor: crosshair; }
.stage img.pixels { display: none; }
.legend { flex-basis: 100%; display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; }
.legend label { display: flex; align-items: center; gap: .4rem; cursor: pointer; }
.legend .colour { width: 1rem; height: 1rem; border-radius: 3px; border: 1px solid #0006; }
.legend .share { opacity: .65; font-variant-numeric: tabular-nums; }
.legend label:has(input:not(:checked)) .colour { background: none !important; }
.tip { position: fixed; z-index: 50; pointer-events: none; padding: .2rem .55rem; color: white;
  background: #111d; border-radius: 5px; font-variant-numeric: tabular-nums; }
"""

# The elements are looked for at each event, as a new result replaces them.
SCRIPT = """\
const pixelsOf = new WeakMap();
const tip = () => element.querySelector('.tip');
let switched = null;

function readPixels(image) {
  if (!pixelsOf.has(image)) {
    const canvas = document.createElement('canvas');
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    pixelsOf.set(image, context.getImageData(0, 0, canvas.width, canvas.height));
  }
  return pixelsOf.get(image);
}

function describe(stage, event) {
  const pixels = readPixels(stage.querySelector('img.pixels'));
  const box = stage.getBoundingClientRect();
  const place = (at, length, count) =>
    Math.min(count - 1, Math.max(0, Math.floor(at / length * count)));
  const column = place(event.clientX - box.left, box.width, pixels.width);
  const row = place(event.clientY - box.top, box.height, pixels.height);
  const [label, high, low] = pixels.data.slice(4 * (row * pixels.width + column));
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


def pack_download(name: str, content: bytes) -> str:
    """A PNG file for ``DOWNLOAD_SCRIPT``; never twice the same, or a second download would fail."""
    encoded = base64.b64encode(content).decode()
    return json.dumps({"name": name, "content": encoded, "number": next(_download_numbers)})


_download_numbers = itertools.count()


def show_segmentation(segmentation: Segmentation) -> str:
    """HTML of the result of every model, and of one legend for them."""
    figures = [
        _show_figure(segmentation, model, label_map)
        for model, label_map in segmentation.label_maps.items()
    ]
    return "".join([*figures, _show_legend(segmentation)])


def _show_figure(segmentation: Segmentation, model: str, label_map: LabelMap) -> str:
    shown = _as_data(Image.fromarray(segmentation.draw(label_map)), "jpeg", quality=92)
    pixels = _as_data(Image.fromarray(pack_pixels(label_map)), "png")
    names = html.escape(json.dumps(segmentation.names))
    return (
        f"<figure><figcaption>{html.escape(model)}</figcaption>"
        f'<div class="stage" data-names="{names}" data-threshold="{segmentation.view.threshold}">'
        f'<img class="shown" alt="classes by {html.escape(model)}" src="{shown}">'
        f'<img class="pixels" alt="" src="{pixels}"></div></figure>'
    )


def _show_legend(segmentation: Segmentation) -> str:
    shares = segmentation.shares(segmentation.main)
    entries = []
    for index in np.argsort(-shares, kind="stable").tolist():
        colour = "rgb({}, {}, {})".format(*segmentation.colours[index])
        checked = "" if index in segmentation.view.hidden else " checked"
        entries.append(
            f'<label><input type="checkbox" data-class="{index}"{checked}>'
            f'<span class="colour" style="background: {colour}"></span>'
            f"<span>{html.escape(segmentation.names[index])}</span>"
            f'<span class="share">{shares[index]:.1%}</span></label>'
        )
    return f'<div class="legend">{"".join(entries)}</div>'


def pack_pixels(label_map: LabelMap) -> NDArray[np.uint8]:
    """Classes and cosines as a picture (h, w, 3) for the pointer; see the file's head."""
    step = -(-max(label_map.labels.shape) // _POINTER_SIDE)
    labels = label_map.labels[::step, ::step]
    cosines = label_map.similarity[::step, ::step].astype(np.float64)
    steps = ((cosines.clip(-1, 1) + 1) / 2 * 65535).round().astype(np.uint16)
    return np.stack([labels, steps >> 8, steps & 255], axis=-1).astype(np.uint8)


def _as_data(image: Image.Image, kind: str, **options: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
