"""Image and any words in, label map out: PixelCLIP for those who import it."""

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
from detectron2.utils.file_io import PathManager
from numpy.typing import NDArray

from pixelclip.checkpoint import PixelCLIPCheckpointer
from pixelclip.data.image_input import ImageInput, to_rgb_pixels
from pixelclip.data.image_reading import ImageReadError
from pixelclip.data.vocabularies import read_vocabulary, validate_class_names
from pixelclip.engine.setup import load_config, take_cpu_without_gpu
from pixelclip.inference.result import Prediction
from pixelclip.meta_arch import PixelCLIP
from pixelclip.modeling.background import NO_THRESHOLD, Background
from pixelclip.modeling.inference_views import ScoredImage, find_best_classes

Vocabulary = Sequence[str] | str | os.PathLike[str]

BACKGROUND_NAME = "background"

# A model has one vocabulary at a time, so those who share a model take turns.
_turns: "weakref.WeakKeyDictionary[PixelCLIP, threading.Lock]" = weakref.WeakKeyDictionary()
_turns_guard = threading.Lock()


class Predictor:
    """Segment images in any words.

    For example:

        predictor = Predictor.from_config("configs/pixelclip_vitb16.yaml", weights="w.pth")
        result = predictor("photo.jpg", ["cat", "sofa, couch", "wall"])
        result.labels, result.names, result.similarity
        result.draw()
        result.save("labelled.png")

    It labels as ``tools/train_net.py --eval-only`` does with the same config. Text features are
    computed once for each vocabulary; those of the latest 16 are kept. Threads may share it: images
    are read and labelled in parallel, the model is used by one at a time.

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
                f"min_size is {min_size} (INPUT.MIN_SIZE_TEST), max_size {max_size} "
                f"(INPUT.MAX_SIZE_TEST) and batch_size {batch_size} (TEST.IMS_PER_BATCH); expected "
                "at least 0, 1 and 1."
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
            config: path of a YAML file, or the name of one that PixelCLIP brings (found from any
                folder), or a Detectron2 config with PixelCLIP's keys.
            weights: a checkpoint, ours or a published one; by default ``MODEL.WEIGHTS``. Where
                there is none either, CLIP's own weights are used (``MODEL.CLIP.PRETRAINED``).
            overrides: keys and values in turn, such as ``("MODEL.DEVICE", "cpu")``; not with a
                config that is not a file.

        Raises:
            FileNotFoundError: the config or the checkpoint does not exist.
            ValueError: a value that cannot be used, or a checkpoint that does not fit the config.
        """
        cfg = _load(config, os.fspath(weights), overrides)
        model = build_model(cfg).eval()
        PixelCLIPCheckpointer(model).load(cfg.MODEL.WEIGHTS)
        return cls(model, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, cfg.TEST.IMS_PER_BATCH)

    @overload
    def __call__(
        self,
        image: list[Any] | tuple[Any, ...],
        vocabulary: Vocabulary,
        *,
        channel_order: str = ...,
        background_threshold: float | None = ...,
        background_words: Sequence[str] | None = ...,
    ) -> list[Prediction]: ...

    @overload
    def __call__(
        self,
        image: ImageInput,
        vocabulary: Vocabulary,
        *,
        channel_order: str = ...,
        background_threshold: float | None = ...,
        background_words: Sequence[str] | None = ...,
    ) -> Prediction: ...

    def __call__(
        self,
        image: ImageInput | list[Any] | tuple[Any, ...],
        vocabulary: Vocabulary,
        *,
        channel_order: str = "RGB",
        background_threshold: float | None = None,
        background_words: Sequence[str] | None = None,
    ) -> Prediction | list[Prediction]:
        """Segment one image, or each of a list.

        Args:
            image: a path, PIL image, array (H, W, 3) or tensor (3, H, W) with values in 0..255, see
                :func:`pixelclip.data.image_input.to_rgb_pixels`; or a list or tuple of these.
            vocabulary: class names, of which one may hold synonyms ("sofa, couch"); the name of a
                packaged vocabulary ("ade20k_150", "coco_stuff_171_synonyms"); or the path of a text
                file with a name in each line.
            channel_order: "RGB", or "BGR" as OpenCV reads images, of arrays and tensors.
            background_threshold: a pixel whose best cosine is below is background; -1 for none. By
                default ``TEST.BACKGROUND_THRESHOLD``.
            background_words: a pixel that resembles one of these more than every class is
                background. By default ``TEST.BACKGROUND_WORDS``. With words or a threshold, the
                class "background" is added behind the others, unless it is among them.

        Returns:
            A prediction, or one for each image of a list, in its order.

        Raises:
            ImageReadError (a ValueError): a file cannot be read as an image, or an image is too
                narrow to be resized.
            TypeError, ValueError: an image or a vocabulary that cannot be used. The text says why.
        """
        background = self._background(background_threshold, background_words)
        names, index = _with_background(read_vocabulary(vocabulary), background)
        images = list(image) if isinstance(image, list | tuple) else [image]
        predictions: list[Prediction] = []
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            pixels = [to_rgb_pixels(one, channel_order) for one in batch]
            scored = self._score(pixels, names, index, background)
            predictions += [
                _predict(*of_image, names, index) for of_image in zip(pixels, scored, strict=True)
            ]
        return predictions if isinstance(image, list | tuple) else predictions[0]

    def _background(self, threshold: float | None, words: Sequence[str] | None) -> Background:
        default = self.model.background
        threshold = default.threshold if threshold is None else threshold
        if not isinstance(threshold, Real) or not -1.0 <= threshold <= 1.0:
            raise ValueError(
                f"background_threshold is {threshold!r}; it is a cosine, in -1..1 (-1 for none)."
            )
        words = default.words if words is None else words
        return Background(float(threshold), validate_class_names(words) if words else ())

    def _score(
        self,
        images: Sequence[NDArray[np.uint8]],
        names: Sequence[str],
        background_index: int | None,
        background: Background,
    ) -> list[ScoredImage]:
        """Scores of RGB images (H, W, 3)."""
        inputs = [self._model_input(pixels) for pixels in images]
        with self._turn:
            self.model.set_vocabulary(
                names, background_index=background_index, background=background
            )
            return self.model.score_images(inputs)

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


def _load(
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
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE!r}; expected 'PixelCLIP', "
            "which each of PixelCLIP's configs sets."
        )
    if weights:
        cfg.MODEL.WEIGHTS = weights
    if cfg.MODEL.WEIGHTS and not PathManager.isfile(cfg.MODEL.WEIGHTS):
        raise FileNotFoundError(f"The weights {cfg.MODEL.WEIGHTS!r} do not exist.")
    if cfg.MODEL.WEIGHTS:
        cfg.MODEL.CLIP.PRETRAINED = ""  # the checkpoint holds all weights
    return cfg


def _with_background(
    names: tuple[str, ...], background: Background
) -> tuple[tuple[str, ...], int | None]:
    """The names, with "background" where it is asked for, and its index among them."""
    is_asked_for = background.threshold > NO_THRESHOLD or background.words
    if is_asked_for and BACKGROUND_NAME not in names:
        names = (*names, BACKGROUND_NAME)
    return names, names.index(BACKGROUND_NAME) if BACKGROUND_NAME in names else None


def _predict(
    pixels: NDArray[np.uint8],
    scored: ScoredImage,
    names: tuple[str, ...],
    background_index: int | None,
) -> Prediction:
    labels, best = find_best_classes(*scored)
    return Prediction(pixels, names, labels.cpu(), best.cpu(), background_index, scored)
