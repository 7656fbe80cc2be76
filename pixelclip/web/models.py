"""The models behind the page: PixelCLIP, and plain CLIP to compare with."""

import concurrent.futures
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from open_clip.transformer import VisionTransformer

from pixelclip.engine.setup import load_config
from pixelclip.inference.predictor import Predictor
from pixelclip.inference.result import Prediction
from pixelclip.web.request import RequestError

OURS, PLAIN = "PixelCLIP", "plain CLIP"

_CLOSING = "The page is closing: ask again when it is back."


class LabelMap(NamedTuple):
    """What one model says about every pixel.

    Attributes:
        labels: (H, W) uint8, the most similar class.
        similarity: (H, W) float32, the cosine with that class, in -1..1.
    """

    labels: NDArray[np.uint8]
    similarity: NDArray[np.float32]


class PageModels:
    """Label maps by PixelCLIP and by plain CLIP, one image at a time.

    Plain CLIP has ``MODEL.CLIP.PRETRAINED``'s weights and, where it is a ViT, the patch features
    that CLIP itself gives; it is loaded when it is first asked for.

    Args:
        config_file, weights, overrides: see :meth:`pixelclip.Predictor.from_config`.
        seconds: that an image may take.

    Raises:
        FileNotFoundError, ValueError: as :meth:`pixelclip.Predictor.from_config`.
    """

    def __init__(
        self, config_file: str, weights: str = "", overrides: Sequence[str] = (),
        seconds: float = 60.0,
    ) -> None:
        self.cfg = load_config(config_file, overrides)
        self.seconds = seconds
        self._predictor = Predictor.from_config(self.cfg, weights)
        self._plain: Predictor | None = None
        self._loading = threading.Lock()
        self._worker = concurrent.futures.ThreadPoolExecutor(1, "segmentation")

    @property
    def has_plain(self) -> bool:
        """Whether CLIP has weights of its own to compare with."""
        return bool(self.cfg.MODEL.CLIP.PRETRAINED)

    def label(self, model: str, image: NDArray[np.uint8], names: Sequence[str]) -> LabelMap:
        """Segment an image (H, W, 3) uint8, RGB, with the model ``OURS`` or ``PLAIN``.

        Raises:
            RequestError: it took too long, CLIP's own weights cannot be loaded, the words or the
                image cannot be used, or the page is closing.
        """
        predict = self._predictor if model == OURS else self._load_plain()
        found = self._in_time(
            lambda: predict(image, list(names), background_threshold=-1.0, background_words=())
        )
        labels = found.labels.numpy().astype(np.uint8)
        return LabelMap(labels, found.best_similarity.float().numpy())

    def close(self) -> None:
        """Start no more work, and do not wait for what has begun; callers get a RequestError."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _load_plain(self) -> Predictor:
        with self._loading:
            if self._plain is None:
                cfg = self.cfg.clone()
                cfg.MODEL.WEIGHTS = ""
                if isinstance(self._predictor.model.image_encoder.visual, VisionTransformer):
                    cfg.MODEL.CLIP.DENSE_PATH = "plain"
                try:
                    self._plain = Predictor.from_config(cfg)
                except (OSError, RuntimeError, ValueError) as error:
                    raise RequestError(f"Plain CLIP cannot be loaded: {error}") from error
            return self._plain

    def _in_time(self, work: Callable[[], Prediction]) -> Prediction:
        """Run in the only worker thread, which finishes what it has begun even if nobody waits."""
        try:
            future = self._worker.submit(work)
        except RuntimeError as error:  # after close()
            raise RequestError(_CLOSING) from error
        try:
            return future.result(timeout=self.seconds)
        except concurrent.futures.TimeoutError as error:
            future.cancel()  # what has not begun would only delay the others
            raise RequestError(
                f"This took longer than {self.seconds:g} seconds and was given up. Try a smaller "
                "image, fewer words, or later, when fewer people ask."
            ) from error
        except concurrent.futures.CancelledError as error:
            raise RequestError(_CLOSING) from error
        except ValueError as error:  # says what is wrong with the words or the image
            raise RequestError(str(error)) from error
