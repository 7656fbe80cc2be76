"""The page itself: Gradio's components, which action belongs to which, and the server."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from PIL import Image

from pixelclip.toy.scenes import make_scene
from pixelclip.utils.installation import import_optional
from pixelclip.web.actions import Answer, PageActions, guarded
from pixelclip.web.models import PageModels
from pixelclip.web.request import Limits, find_upload, refuse_addresses
from pixelclip.web.viewer import DOWNLOAD_SCRIPT, SCRIPT, STYLE, TEMPLATE, Segmentation

# Seconds after which uploads and results that nobody uses are removed.
_KEEP_SECONDS = 3600
# Scenes of the toy test set (seed 13), and words: two more than there are, to be confused with.
_EXAMPLES = {
    0: "wood, brick, stone, sky, car, ladder, mushroom, grass, water",
    1: "water, grass, stone, sand, fish, flower, sky, brick",
    25: "water, snow, bottle, tree, car, sky, grass",
    47: "water, brick, stone, car, mushroom, boat, sky, grass",
}
_PAGE_STYLE = """\
.problem { padding: .6rem .9rem; border-left: 4px solid #d33; background: #d331; }
.note { opacity: .8; }
footer { display: none !important; }
#message:not(:has(.problem)) { display: none; }
"""


@contextmanager
def serve(
    models: PageModels,
    limits: Limits,
    host: str = "127.0.0.1",
    port: int | None = None,
    note: str = "",
) -> Iterator[str]:
    """Serve the page while the block runs; it asks nothing of any other machine.

    Args:
        host: address to listen at; "0.0.0.0" makes the page reachable from everywhere.
        port: the first free one from 7860 by default.
        note: a sentence about the model, in Markdown.

    Yields the address of the page.

    Raises:
        ImportError: Gradio is not installed.
        OSError: the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="pixelclip-page-") as folder:
        private = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": f"{folder}/cache"}
        with mock.patch.dict(os.environ, private):  # Gradio reads it at import and afterwards
            gradio = import_optional("gradio", "web")
            blocks = _build_page(gradio, models, limits, Path(folder), note)
            theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
            _, address, _ = blocks.launch(
                server_name=host, server_port=port, prevent_thread_lock=True, quiet=True,
                share=False, ssr_mode=False, show_error=True, footer_links=[], theme=theme,
                css=_PAGE_STYLE, max_file_size=int(limits.upload_megabytes * 1e6),
                state_session_capacity=50,  # a visitor's latest result takes about 20 MB
            )
            try:
                yield address
            finally:
                blocks.close(verbose=False)


def _build_page(gradio: Any, models: PageModels, limits: Limits, folder: Path, note: str) -> Any:
    """Gradio's Blocks; the examples are written into the folder."""
    cache = (_KEEP_SECONDS, _KEEP_SECONDS)
    with gradio.Blocks(title="PixelCLIP", analytics_enabled=False, delete_cache=cache) as blocks:
        gradio.Markdown(f"# PixelCLIP: any words, every pixel\n{note}")
        with gradio.Row():
            with gradio.Column(scale=2, min_width=280):
                image, words, compare = _add_request(gradio, limits, list(models.baselines))
                start = gradio.Button("Segment", variant="primary", elem_id="segment")
                starts = [start.click, words.submit]
                if models.is_toy:
                    examples = gradio.Examples(
                        write_examples(folder), [image, words], cache_examples=False,
                        label="Examples: toy scenes", elem_id="examples",
                    )
                    starts.append(examples.load_input_event.then)
            with gradio.Column(scale=3, min_width=320):
                outputs, opacity = _add_result(gradio)
                with gradio.Row():
                    buttons = {
                        kind: gradio.Button(f"Download {kind}", elem_id=f"download-{kind}")
                        for kind in ("overlay", "labels")
                    }
        actions = PageActions(models, limits)
        inputs = [image, words, compare, opacity]
        _connect(gradio, actions, starts, inputs, buttons, outputs)
    for component in blocks.blocks.values():
        refuse_addresses(component)
    return blocks.queue(max_size=20)


def write_examples(folder: Path) -> list[list[str]]:
    """Draw toy scenes into a folder; their paths, and words for each as a person types them."""
    examples = []
    for index, words in _EXAMPLES.items():
        path = folder / f"scene_{index}.png"
        scene = Image.fromarray(make_scene(13, index).pixels)
        scene.resize((480, 480), Image.Resampling.BICUBIC).save(path)
        examples.append([str(path), words])
    return examples


def _add_request(gradio: Any, limits: Limits, baselines: list[str]) -> tuple[Any, Any, Any]:
    largest = f"{limits.upload_megabytes:g} MB and {limits.megapixels:g} megapixels"
    image = gradio.Image(
        label="Image", elem_id="image", height=300, buttons=[], type="filepath", image_mode=None,
        placeholder=f"Drop an image here, or click to choose one\n(at most {largest})",
        sources=["upload", "clipboard"],
    )
    # Its own preprocessing opens the file without limits. (A subclass of a component would make
    # Gradio write a stub file next to this one.)
    cache = image.GRADIO_CACHE
    image.preprocess = lambda file: find_upload(file.path, cache) if file and file.path else None
    words = gradio.Textbox(
        label="Words", elem_id="words", lines=2, max_lines=6,
        info="Any words, separated by commas; synonyms of a class by slashes (sofa / couch).",
        placeholder="sky, grass, house / building",
    )
    compare = gradio.CheckboxGroup(
        baselines, label="Compare with", elem_id="compare",
        info="Training-free baselines with CLIP's own weights." if baselines
        else "Needs CLIP's own weights: MODEL.CLIP.PRETRAINED is empty.",
    )
    return image, words, compare


def _add_result(gradio: Any) -> tuple[dict[str, Any], Any]:
    outputs = {
        "message": gradio.HTML(elem_id="message"),
        "viewer": gradio.HTML(
            '<p class="note">Drop an image, type words, and press “Segment”.</p>',
            elem_id="viewer", html_template=TEMPLATE, css_template=STYLE, js_on_load=SCRIPT,
        ),
    }
    with gradio.Row():
        outputs["threshold"] = gradio.Slider(
            -1.0, 1.0, -1.0, step=0.001, buttons=[], elem_id="threshold",
            label="Background threshold",
            info="Pixels that resemble no word more than this (cosine) get no color.",
        )
        opacity = gradio.Slider(
            0.0, 1.0, 0.6, step=0.05, buttons=[], elem_id="opacity",
            label="Opacity", info="Of the colors over the image.",
        )
    outputs["state"] = gradio.State(None, time_to_live=_KEEP_SECONDS)
    outputs["file"] = gradio.HTML(html_template="", js_on_load=DOWNLOAD_SCRIPT, visible="hidden")
    return outputs, opacity


def _connect(
    gradio: Any, actions: PageActions, starts: Sequence[Any], inputs: Sequence[Any],
    buttons: Mapping[str, Any], outputs: Mapping[str, Any],
) -> None:
    """Connect components to actions; the inputs are those of :meth:`PageActions.segment`."""
    compare, opacity = inputs[2:]
    state, viewer, threshold = (outputs[name] for name in ("state", "viewer", "threshold"))

    def connect(event: Any, action: Callable[..., Answer], inputs: Any, **options: Any) -> None:
        changed = list(outputs.values())
        event(guarded(action, outputs), inputs, changed, api_visibility="private", **options)

    def adjust(shown: Segmentation | None, threshold: float, opacity: float) -> Answer:
        return actions.show(shown, threshold=threshold, opacity=opacity)

    def toggle(shown: Segmentation | None, event: gradio.EventData) -> Answer:
        return actions.show(shown, hidden=frozenset(map(int, event.hidden)))

    for start in starts:
        connect(start, actions.segment, inputs, show_progress_on=viewer)
    connect(compare.input, actions.compare, [state, compare], show_progress_on=viewer)
    quick = {"show_progress": "hidden", "trigger_mode": "always_last"}
    connect(viewer.toggle, toggle, [state], **quick)
    for slider in (threshold, opacity):
        connect(slider.input, adjust, [state, threshold, opacity], **quick)
    for kind, button in buttons.items():
        connect(button.click, partial(actions.download, kind=kind), [state], show_progress="hidden")
