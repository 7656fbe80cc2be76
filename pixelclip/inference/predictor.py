"""From an image and any words to a label map."""

import os
import threading
import weakref
from collections.abc import Sequence
from numbers import Real
from typing import Any, overload

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from numpy.typing import NDArray

from pixelclip.checkpoint import PixelCLIPCheckpointer
from pixelclip.data.images import ImageInput, ImageReadError, to_rgb_pixels
from pixelclip.data.vocabularies import read_vocabulary, validate_class_names
from pixelclip.engine.setup import load_config, take_cpu_without_gpu
from pixelclip.inference.result import Prediction
from pixelclip.meta_arch import PixelCLIP
from pixelclip.modeling.inference_views import find_best_classes
from pixelclip.modeling.text_classifier import Background

Vocabulary = Sequence[str] | str | os.PathLike[str]

BACKGROUND_NAME = "background"

# A model has one vocabulary at a time, so predictors and threads that share it take turns.
_turns: "weakref.WeakKeyDictionary[PixelCLIP, threading.Lock]" = weakref.WeakKeyDictionary()
_turns_guard = threading.Lock()


class Predictor:
    """Segment images in any words.

    For example:

        predictor = Predictor.from_config("configs/pixelclip_vitb16.yaml", weights="w.pth")
        result = predictor("photo.jpg", ["cat", "sofa, couch", "wall"])
        print(result, result.labels, result.names, result.similarity)
        result.save("labeled.png")

    It labels as ``tools/train_net.py --eval-only`` does with the same config. Text features are
    computed once per vocabulary; those of the latest 16 are kept. Threads may share it: images are
    read and labeled in parallel, the model is used by one at a time.

    Args:
        model: put into eval mode; it keeps the vocabulary of the latest prediction.
        min_size: length in pixels to which the short side of an image is resized; 0 for none.
        max_size: limit of the long side, in pixels.
        batch_size: images of a list that go through the model at a time.

    Raises:
        ValueError: one of these is not positive.
    """

    def __init__(
        self, model: PixelCLIP, min_size: int = 640, max_size: int = 2560, batch_size: int = 1
    ) -> None:
        if min_size < 0 or max_size < 1 or batch_size < 1:
            raise ValueError(
                "INPUT.MIN_SIZE_TEST, INPUT.MAX_SIZE_TEST and TEST.IMS_PER_BATCH are at least 0, 1 "
                f"and 1; got min_size {min_size}, max_size {max_size} and batch_size {batch_size}."
            )
        self.model = model.eval()
        self.max_size = max_size
        self.batch_size = batch_size
        self._resize = T.ResizeShortestEdge(min_size, max_size)
        with _turns_guard:
            self._turn = _turns.setdefault(model, threading.Lock())

    @classmethod
    def from_config(
        cls,
        config: str | os.PathLike[str] | CfgNode,
        weights: str | os.PathLike[str] = "",
        overrides: Sequence[str] = (),
    ) -> "Predictor":
        """Build the model of a config, with weights, on ``MODEL.DEVICE`` (the CPU without a GPU).

        Args:
            config: path of a YAML file, the name of one of PixelCLIP's own (from any folder), or a
                Detectron2 config with PixelCLIP's keys.
            weights: a checkpoint, ours or a published one. Default: ``MODEL.WEIGHTS``, or without
                it CLIP's own weights (``MODEL.CLIP.PRETRAINED``).
            overrides: keys and values in turn, as ``("MODEL.DEVICE", "cpu")``, for a config file.

        Raises:
            FileNotFoundError: the config or the checkpoint does not exist.
            ValueError: an unusable value, or a checkpoint that does not fit the config.
        """
        cfg = _load_config(config, os.fspath(weights), overrides)
        model = build_model(cfg).eval()
        PixelCLIPCheckpointer(model).load(cfg.MODEL.WEIGHTS)
        return cls(model, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, cfg.TEST.IMS_PER_BATCH)

    @overload
    def __call__(
        self, image: ImageInput, vocabulary: Vocabulary, *, channel_order: str = ...,
        background_threshold: float | None = ..., background_words: Sequence[str] | None = ...,
    ) -> Prediction: ...

    @overload
    def __call__(
        self, image: list[Any] | tuple[Any, ...], vocabulary: Vocabulary, *,
        channel_order: str = ..., background_threshold: float | None = ...,
        background_words: Sequence[str] | None = ...,
    ) -> list[Prediction]: ...

    def __call__(
        self, image: Any, vocabulary: Vocabulary, *, channel_order: str = "RGB",
        background_threshold: float | None = None, background_words: Sequence[str] | None = None,
    ) -> Prediction | list[Prediction]:
        """Segment one image, or each of a list.

        Args:
            image: a path, PIL image, array (H, W, 3) or tensor (3, H, W) with values in 0..255, see
                :func:`pixelclip.data.images.to_rgb_pixels`; or a list or tuple of these.
            vocabulary: class names, of which one may hold synonyms ("sofa, couch"); the name of a
                packaged vocabulary ("ade20k_150"); or the path of a text file, a name in each line.
            channel_order: of arrays and tensors: "RGB", or "BGR" as OpenCV reads images.
            background_threshold: pixels whose best cosine is lower are background; -1 for none.
                Default: ``TEST.BACKGROUND_THRESHOLD``.
            background_words: pixels more similar to one of these than to every class are
                background. Default: ``TEST.BACKGROUND_WORDS``. With words or a threshold, the class
                "background" follows the others, unless it is among them.

        Raises:
            ImageReadError (a ValueError): a file that cannot be read, or too narrow an image.
            TypeError, ValueError: an unusable image or vocabulary. The text says why.
        """
        names, index, rule = self._read_names(vocabulary, background_threshold, background_words)
        images = list(image) if isinstance(image, list | tuple) else [image]
        predictions: list[Prediction] = []
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            pixels = [to_rgb_pixels(one, channel_order) for one in batch]
            inputs = [self._model_input(one) for one in pixels]
            with self._turn:
                self.model.set_vocabulary(names, background_index=index, background=rule)
                scored = self.model.score_images(inputs)
            for one, scores in zip(pixels, scored, strict=True):
                labels, best = find_best_classes(*scores)
                predictions.append(Prediction(one, names, labels.cpu(), best.cpu(), index, scores))
        return predictions if isinstance(image, list | tuple) else predictions[0]

    def _read_names(
        self, vocabulary: Vocabulary, threshold: float | None, words: Sequence[str] | None
    ) -> tuple[tuple[str, ...], int | None, Background]:
        """The names, with "background" where it is used, its index among them, and its rule."""
        names = read_vocabulary(vocabulary)
        default = self.model.text_classifier.background
        threshold = default.threshold if threshold is None else threshold
        if not isinstance(threshold, Real) or not -1.0 <= float(threshold) <= 1.0:
            raise ValueError(
                f"background_threshold is {threshold!r}; it is a cosine, in -1..1 (-1 for none)."
            )
        words = default.words if words is None else words
        background = Background(float(threshold), validate_class_names(words) if words else ())
        if background != Background() and BACKGROUND_NAME not in names:
            names = (*names, BACKGROUND_NAME)
        index = names.index(BACKGROUND_NAME) if BACKGROUND_NAME in names else None
        return names, index, background

    def _model_input(self, pixels: NDArray[np.uint8]) -> dict[str, Any]:
        """What Detectron2's ``DatasetMapper`` makes of an image in an evaluation."""
        height, width = pixels.shape[:2]
        if max(height, width) > 2 * self.max_size * min(height, width):
            raise ImageReadError(
                f"the image is {width} x {height} pixels: too narrow to be resized to at most "
                f"{self.max_size} pixels."
            )
        resized = self._resize.get_transform(pixels).apply_image(pixels)
        image = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))  # (3, h, w)
        return {"image": image, "height": height, "width": width}


def _load_config(
    config: str | os.PathLike[str] | CfgNode, weights: str, overrides: Sequence[str]
) -> CfgNode:
    if not isinstance(config, CfgNode):
        cfg = load_config(os.fspath(config), overrides)
    elif overrides:
        raise ValueError(f"Merge the overrides {list(overrides)} into the config itself.")
    else:
        cfg = config.clone()
        cfg.defrost()
        take_cpu_without_gpu(cfg)
    if cfg.MODEL.META_ARCHITECTURE != "PixelCLIP":
        raise ValueError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE!r}; expected 'PixelCLIP', as "
            "in each of PixelCLIP's configs."
        )
    cfg.MODEL.WEIGHTS = weights or cfg.MODEL.WEIGHTS
    if cfg.MODEL.WEIGHTS:
        cfg.MODEL.CLIP.PRETRAINED = ""  # the checkpoint holds all weights
    return cfg
