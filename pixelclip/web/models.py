"""The models behind the page: PixelCLIP, and CLIP as it is to compare with."""

import concurrent.futures
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from detectron2.config import CfgNode
from numpy.typing import NDArray
from open_clip.transformer import VisionTransformer

from pixelclip.engine.setup import load_config
from pixelclip.inference.predictor import Predictor
from pixelclip.web.request import RequestError
from pixelclip.web.segmentation import LabelMap

OURS, PLAIN = "PixelCLIP", "plain CLIP"

_CLOSING = "The page is closing: ask again when it is back."

_Result = TypeVar("_Result")


class PageModels:
    """Label maps by PixelCLIP and by plain CLIP, one picture at a time.

    Plain CLIP has ``MODEL.CLIP.PRETRAINED``'s weights and, where it is a ViT, the patch features
    that CLIP itself gives; it is loaded when it is first asked for.

    Args:
        config_file: see :meth:`pixelclip.Predictor.from_config`.
        weights: a checkpoint; "" for ``MODEL.WEIGHTS``, or else CLIP's own weights.
        overrides: config keys and values in turn.
        seconds: that a picture may take.

    Raises:
        FileNotFoundError, ValueError: as :meth:`pixelclip.Predictor.from_config`.
    """

    def __init__(
        self,
        config_file: str,
        weights: str = "",
        overrides: Sequence[str] = (),
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
        """Whether there are weights of CLIP's own to compare with."""
        return bool(self.cfg.MODEL.CLIP.PRETRAINED)

    def label(self, model: str, picture: NDArray[np.uint8], names: Sequence[str]) -> LabelMap:
        """Segment a picture (H, W, 3).

        Args:
            model: ``OURS`` or ``PLAIN``.
            picture: RGB.
            names: of the classes.

        Raises:
            RequestError: it took too long, CLIP's own weights cannot be loaded, the words or the
                picture cannot be used, or the page is closing.
        """
        predictor = self._predictor if model == OURS else self._load_plain()
        return self._in_time(
            lambda: LabelMap.of(
                predictor(picture, list(names), background_threshold=-1.0, background_words=())
            )
        )

    def close(self) -> None:
        """Begin no more work, without waiting for what has begun; who waits gets a RequestError."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _load_plain(self) -> Predictor:
        with self._loading:
            if self._plain is None:
                try:
                    cfg = _plain_config(self.cfg, self._predictor)
                    self._plain = Predictor.from_config(cfg)
                except (OSError, RuntimeError, ValueError) as error:
                    raise RequestError(f"Plain CLIP cannot be loaded: {error}") from error
            return self._plain

    def _in_time(self, work: Callable[[], _Result]) -> _Result:
        """Do it in the one working thread, which ends what it has begun even if nobody waits."""
        future = self._submit(work)
        try:
            return future.result(timeout=self.seconds)
        except concurrent.futures.TimeoutError as error:
            future.cancel()  # what has not begun would only delay the others
            raise RequestError(
                f"This took longer than {self.seconds:g} seconds and was given up. Try a smaller "
                "picture, fewer words, or later, when fewer people ask."
            ) from error
        except concurrent.futures.CancelledError as error:
            raise RequestError(_CLOSING) from error
        except ValueError as error:  # says what is wrong with the words or the picture
            raise RequestError(str(error)) from error

    def _submit(self, work: Callable[[], _Result]) -> concurrent.futures.Future[_Result]:
        try:
            return self._worker.submit(work)
        except RuntimeError as error:  # after close()
            raise RequestError(_CLOSING) from error


def _plain_config(cfg: CfgNode, predictor: Predictor) -> CfgNode:
    plain = cfg.clone()
    plain.MODEL.WEIGHTS = ""
    if isinstance(predictor.model.image_encoder.visual, VisionTransformer):
        plain.MODEL.CLIP.DENSE_PATH = "plain"
    return plain
