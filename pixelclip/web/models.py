"""The models behind the page: PixelCLIP, and training-free baselines to compare with."""

import concurrent.futures
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelclip.analysis.baselines import baseline_configs
from pixelclip.inference.predictor import Predictor, load_predictor_config
from pixelclip.inference.result import Prediction
from pixelclip.modeling.clip_loader import get_clip_note
from pixelclip.web.request import RequestError

OURS = "PixelCLIP"

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
    """Label maps by PixelCLIP and by the baselines, one image at a time.

    A baseline is loaded when it is first asked for.

    Args:
        config_file, weights, overrides: see :meth:`pixelclip.Predictor.from_config`.
        seconds: that an image may take.

    Attributes:
        baselines: their configs by their names, see
            :func:`pixelclip.analysis.baselines.baseline_configs`; none where CLIP has no weights.

    Raises:
        FileNotFoundError, ValueError: as :meth:`pixelclip.Predictor.from_config`.
    """

    def __init__(
        self, config_file: str, weights: str = "", overrides: Sequence[str] = (),
        seconds: float = 60.0,
    ) -> None:
        self.cfg = load_predictor_config(config_file, weights, overrides)
        self.seconds = seconds
        self.baselines = baseline_configs(self.cfg) if self.cfg.MODEL.CLIP.PRETRAINED else {}
        self._predictors = {OURS: Predictor.from_config(self.cfg)}
        self._loading = threading.Lock()
        self._worker = concurrent.futures.ThreadPoolExecutor(1, "segmentation")

    @property
    def note(self) -> str:
        """What visitors should know about the model; "" where there is nothing to say."""
        return get_clip_note(self.cfg.MODEL.CLIP.ARCH)

    @property
    def is_toy(self) -> bool:
        """Whether the model is the tiny CLIP, which knows the classes of the toy benchmark."""
        return self.cfg.MODEL.CLIP.ARCH == "toy"

    def label(self, model: str, image: NDArray[np.uint8], names: Sequence[str]) -> LabelMap:
        """Segment an image (H, W, 3) uint8, RGB, with ``OURS`` or a baseline.

        Raises:
            RequestError: it took too long, CLIP's own weights cannot be loaded, the words or the
                image cannot be used, or the page is closing.
        """
        predict = self._predictors.get(model) or self._load(model)
        found = self._in_time(
            lambda: predict(image, list(names), background_threshold=-1.0, background_words=())
        )
        labels = found.labels.numpy().astype(np.uint8)
        return LabelMap(labels, found.best_similarity.float().numpy())

    def close(self) -> None:
        """Start no more work, and do not wait for what has begun; callers get a RequestError."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _load(self, model: str) -> Predictor:
        with self._loading:
            if model not in self._predictors:
                try:
                    self._predictors[model] = Predictor.from_config(self.baselines[model])
                except (OSError, RuntimeError, ValueError) as error:
                    raise RequestError(f"{model} cannot be loaded: {error}") from error
            return self._predictors[model]

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
