"""What happens when something on the page is used."""

import dataclasses
import functools
import html
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pixelclip.utils.optional_packages import import_optional
from pixelclip.web.models import OURS, PLAIN, PageModels
from pixelclip.web.request import Limits, RequestError, parse_words, read_picture
from pixelclip.web.segmentation import Segmentation, View
from pixelclip.web.viewer import pack_download, show_segmentation

logger = logging.getLogger(__name__)


class ShownComponents(NamedTuple):
    """What an event may change, in the order of :meth:`PageActions.show`'s results."""

    message: Any
    state: Any
    viewer: Any
    threshold: Any


class PageActions:
    """Answers to what visitors do; the state of each visit lies with the browser's session.

    Unless said otherwise, an answer is the new content of all :class:`ShownComponents`.

    Args:
        models: that label the pictures.
        limits: of a request.
    """

    def __init__(self, models: PageModels, limits: Limits) -> None:
        self.models = models
        self.limits = limits
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
        """New content of all components of :class:`ShownComponents`."""
        shown = dataclasses.replace(segmentation, view=view)
        slider = self.gradio.skip()
        if has_new_scores:
            low, high = shown.similarity_range()
            slider = self.gradio.Slider(minimum=low, maximum=high, value=view.threshold)
        return ["", shown, show_segmentation(shown), slider]

    def download(self, segmentation: Segmentation | None, kind: str) -> list[Any]:
        """Message, and the "overlay" or the "labels" as a file for the browser."""
        if segmentation is None:
            raise RequestError("There is nothing to download yet: segment a picture first.")
        encode = {"overlay": segmentation.encode_overlay, "labels": segmentation.encode_labels}
        return ["", pack_download(f"pixelclip_{kind}.png", encode[kind]())]

    def keep(self) -> list[Any]:
        """Change nothing."""
        return [self.gradio.skip()] * len(ShownComponents._fields)

    def guarded(
        self, handler: Callable[..., list[Any]], num_outputs: int = len(ShownComponents._fields)
    ) -> Callable[..., list[Any]]:
        """The handler, whose problems become sentences in the message.

        Args:
            handler: whose first result is the message.
            num_outputs: how many results it has.
        """

        @functools.wraps(handler)
        def guarded(*inputs: Any) -> list[Any]:
            try:
                return handler(*inputs)
            except RequestError as error:
                text = str(error)
            except Exception:
                logger.exception("The page could not answer a request")
                text = "Something went wrong here; the terminal of the page says what."
            problem = f'<p class="problem" role="alert">{html.escape(text)}</p>'
            return [problem, *[self.gradio.skip()] * (num_outputs - 1)]

        return guarded
