"""The page itself: Gradio components, and what happens when one is used."""

import dataclasses
import functools
import html
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pixelclip.optional_packages import import_optional
from pixelclip.web.examples import write_examples
from pixelclip.web.models import OURS, PLAIN, PageModels
from pixelclip.web.request import Limits, RequestError, parse_words, read_picture
from pixelclip.web.segmentation import Segmentation, View
from pixelclip.web.viewer import SCRIPT, STYLE, TEMPLATE, show_segmentation

logger = logging.getLogger(__name__)

TITLE = "PixelCLIP: any words, every pixel"

# Uploads and results that nobody has used for so many seconds are removed.
_KEEP_SECONDS = 3600
_WAITING_REQUESTS = 20
_PAGE_STYLE = """\
.problem { padding: .6rem .9rem; border-left: 4px solid #d33; background: #d331; }
.note { opacity: .8; }
footer { display: none !important; }
#message:not(:has(.problem)) { display: none; }
"""


class _Components(NamedTuple):
    """What an event may change, in the order of :meth:`_Page.show`'s results."""

    state: Any
    message: Any
    viewer: Any
    threshold: Any
    overlay_file: Any
    label_file: Any


class _Page:
    """What happens on the page; free of state, which lies with each visitor.

    Args:
        models: that label the pictures.
        limits: of a request.
        folder: for files to download.
    """

    def __init__(self, models: PageModels, limits: Limits, folder: Path) -> None:
        self.models = models
        self.limits = limits
        self.folder = folder
        self.gradio = import_optional("gradio", "web")

    def segment(self, path: str | None, words: str, compare: bool, opacity: float) -> list[Any]:
        """Label a new picture, or the same one with other words."""
        names = parse_words(words, self.limits)
        picture = read_picture(path, self.limits)
        label_maps = {OURS: self.models.label(OURS, picture, names)}
        if compare:
            label_maps[PLAIN] = self.models.label(PLAIN, picture, names)
        segmentation = Segmentation(picture, names, label_maps)
        low, _ = segmentation.similarity_range()
        return self.show(segmentation, View(low, opacity), has_new_scores=True)

    def compare(self, segmentation: Segmentation | None, compare: bool) -> list[Any]:
        """Add or remove what plain CLIP says."""
        if segmentation is None:
            return self.keep()
        label_maps = {OURS: segmentation.main}
        if compare:
            label_maps[PLAIN] = self.models.label(PLAIN, segmentation.picture, segmentation.names)
        changed = dataclasses.replace(segmentation, label_maps=label_maps)
        low, high = changed.similarity_range()
        threshold = min(max(segmentation.view.threshold, low), high)
        view = dataclasses.replace(segmentation.view, threshold=threshold)
        return self.show(changed, view, has_new_scores=True)

    def adjust(
        self, segmentation: Segmentation | None, threshold: float, opacity: float
    ) -> list[Any]:
        """Show the same scores with another background threshold or opacity."""
        if segmentation is None:
            return self.keep()
        view = dataclasses.replace(segmentation.view, threshold=threshold, opacity=opacity)
        return self.show(segmentation, view)

    def toggle(self, segmentation: Segmentation | None, hidden: Sequence[int]) -> list[Any]:
        """Switch classes off and on."""
        if segmentation is None:
            return self.keep()
        view = dataclasses.replace(segmentation.view, hidden=frozenset(map(int, hidden)))
        return self.show(segmentation, view)

    def show(
        self, segmentation: Segmentation, view: View, has_new_scores: bool = False
    ) -> list[Any]:
        """New content of all components of :class:`_Components`."""
        shown = dataclasses.replace(segmentation, view=view)
        slider = self.gradio.skip()
        if has_new_scores:
            low, high = shown.similarity_range()
            slider = self.gradio.Slider(minimum=low, maximum=high, value=view.threshold)
        folder = tempfile.mkdtemp(dir=self.folder)
        overlay_file, label_file = shown.save(folder, "pixelclip")
        buttons = [
            self.gradio.DownloadButton(value=file, interactive=True)
            for file in (overlay_file, label_file)
        ]
        return [shown, "", show_segmentation(shown), slider, *buttons]

    def keep(self, message: Any = None) -> list[Any]:
        """Change nothing but the message."""
        skip = self.gradio.skip()
        return [skip, skip if message is None else message, *[skip] * 4]

    def guarded(self, handler: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
        """The handler, whose problems are shown as sentences."""

        @functools.wraps(handler)
        def guarded(*inputs: Any) -> list[Any]:
            try:
                return handler(*inputs)
            except RequestError as error:
                text = str(error)
            except Exception:
                logger.exception("The page could not answer a request")
                text = "Something went wrong here; the terminal of the page says what."
            return self.keep(f'<p class="problem" role="alert">{html.escape(text)}</p>')

        return guarded


def build_page(models: PageModels, limits: Limits, folder: Path, note: str = "") -> Any:
    """Build the page.

    Args:
        models: that label the pictures.
        limits: of a request.
        folder: existing, for examples and results.
        note: a sentence about the model, in Markdown.

    Returns:
        Gradio's Blocks.

    Raises:
        ImportError: Gradio is not installed.
    """
    gradio = import_optional("gradio", "web")
    page = _Page(models, limits, folder)
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
        inputs = [picture, words, compare, opacity]
        with left:
            _add_examples(gradio, page, folder, inputs, shown)
        _connect(gradio, page, shown, inputs, start)
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
    picture.preprocess = lambda payload: None if payload is None else payload.path
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


def _add_result(gradio: Any) -> tuple[_Components, Any]:
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
    with gradio.Row():
        overlay_file = gradio.DownloadButton(
            "Download overlay", interactive=False, elem_id="download-overlay"
        )
        label_file = gradio.DownloadButton(
            "Download labels", interactive=False, elem_id="download-labels"
        )
    state = gradio.State(None, time_to_live=_KEEP_SECONDS)
    return _Components(state, message, viewer, threshold, overlay_file, label_file), opacity


def _add_examples(
    gradio: Any, page: _Page, folder: Path, inputs: Sequence[Any], shown: _Components
) -> None:
    gradio.Examples(
        [list(example) for example in write_examples(folder)],
        inputs=list(inputs[:2]),
        label="Examples: drawn scenes",
        cache_examples=False,
        elem_id="examples",
    ).load_input_event.then(
        page.guarded(page.segment),
        list(inputs),
        list(shown),
        show_progress_on=shown.viewer,
        api_visibility="private",
    )


def _connect(
    gradio: Any, page: _Page, shown: _Components, inputs: Sequence[Any], start: Any
) -> None:
    compare, opacity = inputs[2:]

    def toggle(segmentation: Segmentation | None, event: gradio.EventData) -> list[Any]:
        return page.guarded(page.toggle)(segmentation, event.hidden)

    options = {"outputs": list(shown), "api_visibility": "private"}
    working = {**options, "show_progress_on": shown.viewer}
    quick = {**options, "show_progress": "hidden", "trigger_mode": "always_last"}
    segment = page.guarded(page.segment)
    gradio.on([start.click, inputs[1].submit], segment, list(inputs), **working)
    compare.input(page.guarded(page.compare), [shown.state, compare], **working)
    shown.viewer.toggle(toggle, [shown.state], **quick)
    for slider in (shown.threshold, opacity):
        slider.input(page.guarded(page.adjust), [shown.state, shown.threshold, opacity], **quick)


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
            allowed_paths=[folder],
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
