"""The page itself: Gradio's components, which action belongs to which, and the server."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pixelclip.utils.optional_packages import import_optional
from pixelclip.web.actions import PageActions, ShownComponents
from pixelclip.web.examples import write_examples
from pixelclip.web.models import PageModels
from pixelclip.web.request import Limits
from pixelclip.web.segmentation import Segmentation
from pixelclip.web.uploads import find_upload, refuse_addresses
from pixelclip.web.viewer import DOWNLOAD_SCRIPT, SCRIPT, STYLE, TEMPLATE

TITLE = "PixelCLIP: any words, every pixel"

# Uploads and results that nobody has used for so many seconds are removed.
_KEEP_SECONDS = 3600
_WAITING_REQUESTS = 20
# A visitor's latest result takes about 20 MB.
_VISITORS_KEPT = 50
_PAGE_STYLE = """\
.problem { padding: .6rem .9rem; border-left: 4px solid #d33; background: #d331; }
.note { opacity: .8; }
footer { display: none !important; }
#message:not(:has(.problem)) { display: none; }
"""


def build_page(models: PageModels, limits: Limits, folder: Path, note: str = "") -> Any:
    """Build the page.

    Args:
        models: that label the pictures.
        limits: of a request.
        folder: existing, for the examples.
        note: a sentence about the model, in Markdown.

    Returns:
        Gradio's Blocks.

    Raises:
        ImportError: Gradio is not installed.
    """
    gradio = import_optional("gradio", "web")
    actions = PageActions(models, limits)
    with gradio.Blocks(
        title="PixelCLIP",
        analytics_enabled=False,
        delete_cache=(_KEEP_SECONDS, _KEEP_SECONDS),
    ) as blocks:
        gradio.Markdown(f"# {TITLE}\n{note}")
        with gradio.Row():
            with gradio.Column(scale=2, min_width=280) as left:
                picture, words, start, compare = _add_request(gradio, limits, models.has_plain)
            with gradio.Column(scale=3, min_width=320):
                shown, opacity = _add_result(gradio)
                _add_downloads(gradio, actions, shown)
        inputs = [picture, words, compare, opacity]
        with left:
            _add_examples(gradio, actions, folder, inputs, shown)
        _connect(gradio, actions, shown, inputs, start)
    for component in blocks.blocks.values():
        refuse_addresses(component)
    return blocks.queue(max_size=_WAITING_REQUESTS)


def _add_request(gradio: Any, limits: Limits, has_plain: bool) -> tuple[Any, Any, Any, Any]:
    picture = gradio.Image(
        label="Picture",
        placeholder="Drop a picture here, or click to choose one\n"
        f"(at most {limits.upload_megabytes:g} MB and {limits.megapixels:g} megapixels)",
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard"],
        height=300,
        buttons=[],
        elem_id="picture",
    )
    # Its own preprocessing opens the file without limits. (A subclass of a component would make
    # Gradio write a stub file beside this one.)
    picture.preprocess = lambda payload: (
        None if payload is None else find_upload(payload.path, picture.GRADIO_CACHE)
    )
    words = gradio.Textbox(
        label="Words",
        info="Any words, separated by commas; synonyms of a class by slashes (sofa / couch).",
        placeholder="sky, grass, house / building",
        lines=2,
        max_lines=6,
        elem_id="words",
    )
    compare = gradio.Checkbox(
        label="Compare with plain CLIP",
        info=None if has_plain else "Needs CLIP's own weights: MODEL.CLIP.PRETRAINED is empty.",
        interactive=has_plain,
        elem_id="compare",
    )
    start = gradio.Button("Segment", variant="primary", elem_id="segment")
    return picture, words, start, compare


def _add_result(gradio: Any) -> tuple[ShownComponents, Any]:
    message = gradio.HTML(elem_id="message")
    viewer = gradio.HTML(
        '<p class="note">Drop a picture, type words, and press “Segment”; '
        "or click one of the examples.</p>",
        html_template=TEMPLATE,
        css_template=STYLE,
        js_on_load=SCRIPT,
        elem_id="viewer",
    )
    with gradio.Row():
        threshold = gradio.Slider(
            -1.0,
            1.0,
            -1.0,
            step=0.001,
            label="Background threshold",
            info="Pixels that resemble no word more than this (cosine) get no colour.",
            buttons=[],
            elem_id="threshold",
        )
        opacity = gradio.Slider(
            0.0,
            1.0,
            0.6,
            step=0.05,
            label="Opacity",
            info="Of the colours over the picture.",
            buttons=[],
            elem_id="opacity",
        )
    state = gradio.State(None, time_to_live=_KEEP_SECONDS)
    return ShownComponents(message, state, viewer, threshold), opacity


def _add_downloads(gradio: Any, actions: PageActions, shown: ShownComponents) -> None:
    file = gradio.HTML(html_template="", js_on_load=DOWNLOAD_SCRIPT, visible="hidden")
    outputs = [shown.message, file]
    with gradio.Row():
        for kind in ("overlay", "labels"):
            gradio.Button(f"Download {kind}", elem_id=f"download-{kind}").click(
                actions.guarded(partial(actions.download, kind=kind), len(outputs)),
                [shown.state],
                outputs,
                api_visibility="private",
            )


def _add_examples(
    gradio: Any, actions: PageActions, folder: Path, inputs: Sequence[Any], shown: ShownComponents
) -> None:
    gradio.Examples(
        [list(example) for example in write_examples(folder)],
        inputs=list(inputs[:2]),
        label="Examples: drawn scenes",
        cache_examples=False,
        elem_id="examples",
    ).load_input_event.then(
        actions.guarded(actions.segment),
        list(inputs),
        list(shown),
        show_progress_on=shown.viewer,
        api_visibility="private",
    )


def _connect(
    gradio: Any, actions: PageActions, shown: ShownComponents, inputs: Sequence[Any], start: Any
) -> None:
    compare, opacity = inputs[2:]

    def toggle(segmentation: Segmentation | None, event: gradio.EventData) -> list[Any]:
        return actions.guarded(actions.toggle)(segmentation, event.hidden)

    options = {"outputs": list(shown), "api_visibility": "private"}
    working = {**options, "show_progress_on": shown.viewer}
    quick = {**options, "show_progress": "hidden", "trigger_mode": "always_last"}
    segment = actions.guarded(actions.segment)
    gradio.on([start.click, inputs[1].submit], segment, list(inputs), **working)
    compare.input(actions.guarded(actions.compare), [shown.state, compare], **working)
    shown.viewer.toggle(toggle, [shown.state], **quick)
    for slider in (shown.threshold, opacity):
        slider.input(
            actions.guarded(actions.adjust), [shown.state, shown.threshold, opacity], **quick
        )


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
        models: that label the pictures.
        limits: of a request.
        host: address to listen at; "0.0.0.0" makes the page reachable from everywhere.
        port: a free one from 7860 on by default.
        note: see :func:`build_page`.

    Yields:
        The address of the page.

    Raises:
        ImportError: Gradio is not installed.
        OSError: the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="pixelclip-page-") as folder, _private_settings(folder):
        gradio = import_optional("gradio", "web")
        blocks = build_page(models, limits, Path(folder), note)
        fonts = ["system-ui", "sans-serif"]
        _, address, _ = blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            show_error=True,
            ssr_mode=False,
            footer_links=[],
            state_session_capacity=_VISITORS_KEPT,
            max_file_size=int(limits.upload_megabytes * 1e6),
            theme=gradio.themes.Default(font=fonts, font_mono=["monospace"]),
            css=_PAGE_STYLE,
        )
        try:
            yield address
        finally:
            blocks.close(verbose=False)


@contextmanager
def _private_settings(folder: str) -> Iterator[None]:
    """Keep Gradio from the network, and its files in a folder that goes with the page."""
    settings = {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": os.path.join(folder, "cache"),
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
