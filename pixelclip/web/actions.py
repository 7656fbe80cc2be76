"""What happens when something on the page is used."""

import dataclasses
import functools
import html
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pixelclip.utils.installation import import_optional
from pixelclip.web.models import OURS, PageModels
from pixelclip.web.request import Limits, RequestError, read_image, read_words
from pixelclip.web.viewer import Segmentation, pack_download, show_segmentation

logger = logging.getLogger(__name__)

# New contents by the names of what changes: message, state, viewer, threshold or file.
Answer = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class PageActions:
    """Answers to what visitors do; the state of a visit belongs to the browser's session.

    Attributes:
        models: that segment the images.
        limits: of a request.
    """

    models: PageModels
    limits: Limits

    def segment(
        self, path: str | None, words: str, baselines: Sequence[str], opacity: float
    ) -> Answer:
        """Segment a new image, or the same one with other words."""
        names = read_words(words, self.limits)
        image = read_image(path, self.limits)
        label_maps = {OURS: self.models.label(OURS, image, names)}
        return self.compare(Segmentation(image, names, label_maps, opacity=opacity), baselines)

    def compare(self, segmentation: Segmentation | None, baselines: Sequence[str]) -> Answer:
        """Show PixelCLIP's result next to those of some baselines."""
        if segmentation is None:
            return {"message": ""}
        image, names = segmentation.image, segmentation.names
        label_maps = {
            model: segmentation.label_maps.get(model) or self.models.label(model, image, names)
            for model in (OURS, *baselines)
        }
        segmentation = dataclasses.replace(segmentation, label_maps=label_maps)
        low, high = segmentation.similarity_range()
        threshold = min(max(segmentation.threshold, low), high)
        gradio = import_optional("gradio", "web")
        slider = gradio.Slider(minimum=low, maximum=high, value=threshold)
        return {**self.show(segmentation, threshold=threshold), "threshold": slider}

    def show(self, segmentation: Segmentation | None, **changes: Any) -> Answer:
        """Show the same scores with some fields of the segmentation changed."""
        if segmentation is None:
            return {"message": ""}
        shown = dataclasses.replace(segmentation, **changes)
        return {"message": "", "state": shown, "viewer": show_segmentation(shown)}

    def download(self, segmentation: Segmentation | None, kind: str) -> Answer:
        """The "overlay" or the "labels" as a file for the browser."""
        if segmentation is None:
            raise RequestError("There is nothing to download yet: segment an image first.")
        encode = {"overlay": segmentation.encode_overlay, "labels": segmentation.encode_labels}
        return {"message": "", "file": pack_download(f"pixelclip_{kind}.png", encode[kind]())}


def guarded(handler: Callable[..., Answer], outputs: Mapping[str, Any]) -> Callable[..., dict]:
    """The handler as Gradio calls it: its answer by component, its problems as a message."""

    @functools.wraps(handler)
    def answer(*inputs: Any) -> dict:
        try:
            return {outputs[name]: value for name, value in handler(*inputs).items()}
        except RequestError as error:
            text = str(error)
        except Exception:
            logger.exception("The page could not answer a request")
            text = "Something went wrong here; the terminal of the page says what."
        return {outputs["message"]: f'<p class="problem" role="alert">{html.escape(text)}</p>'}

    return answer
