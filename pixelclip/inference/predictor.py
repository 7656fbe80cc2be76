"""From an image and any words to a label map."""

import logging
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
from numpy.typing import NDArray

from pixelclip.checkpoint import PixelCLIPCheckpointer
from pixelclip.data.images import IMAGE_SUFFIXES, ImageInput, ImageReadError, to_rgb_pixels
from pixelclip.data.vocabularies import read_vocabulary, validate_class_names
from pixelclip.engine.setup import load_config, take_cpu_without_gpu
from pixelclip.inference.result import Prediction
from pixelclip.meta_arch import PixelCLIP
from pixelclip.modeling.inference_views import find_best_classes
from pixelclip.modeling.text_classifier import Background

logger = logging.getLogger(__name__)

Vocabulary = Sequence[str] | str | os.PathLike[str]

DEFAULT_MODEL = "pixelclip_vitb16"

BACKGROUND_NAME = "background"

# A model has one vocabulary at a time, so predictors and threads that share it take turns.
_turns: "weakref.WeakKeyDictionary[PixelCLIP, threading.Lock]" = weakref.WeakKeyDictionary()
_turns_guard = threading.Lock()


class Predictor:
    """Segment images in any words.

    For example:

        predictor = Predictor.from_pretrained("pixelclip_vitb16")
        result = predictor("photo.jpg", ["cat", "sofa, couch", "wall"])
        print(result, result.labels, result.names, result.similarity)
        result.save("labeled.png")

    It labels as ``pixelclip evaluate`` does with the same config. Text features are computed once
    per vocabulary; those of the latest 16 are kept. Threads may share it: images are read and
    labeled in parallel, the model is used by one at a time.

    Args:
        model: a model, which is put into eval mode and keeps the vocabulary of the latest
            prediction; or weights, see :meth:`from_pretrained`.
        min_size: length in pixels to which the short side of an image is resized; 0 for none.
            Default: ``INPUT.MIN_SIZE_TEST`` of the weights' config, or 640.
        max_size: limit of the long side, in pixels. Default: ``INPUT.MAX_SIZE_TEST``, or 2560.
        batch_size: images of a list that go through the model at a time. Default:
            ``TEST.IMS_PER_BATCH``, or 1.

    Raises:
        ValueError: one of these is not positive; or as :meth:`from_pretrained`.
    """

    def __init__(
        self,
        model: PixelCLIP | str | os.PathLike[str],
        min_size: int | None = None,
        max_size: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        sizes = (640, 2560, 1)
        self._config: CfgNode | None = None
        if not isinstance(model, PixelCLIP):
            model, self._config = _build("", _check_weights(model))
            sizes = _sizes(self._config)
        given = (min_size, max_size, batch_size)
        self.min_size, self.max_size, self.batch_size = (
            default if size is None else size for size, default in zip(given, sizes, strict=True)
        )
        if self.min_size < 0 or self.max_size < 1 or self.batch_size < 1:
            raise ValueError(
                "INPUT.MIN_SIZE_TEST, INPUT.MAX_SIZE_TEST and TEST.IMS_PER_BATCH are at least 0, 1 "
                f"and 1; got min_size {self.min_size}, max_size {self.max_size} and batch_size "
                f"{self.batch_size}."
            )
        self.model = model.eval()
        self._resize = T.ResizeShortestEdge(self.min_size, self.max_size)
        self._warned: set[tuple[str, ...]] = set()
        with _turns_guard:
            self._turn = _turns.setdefault(model, threading.Lock())

    @classmethod
    def from_pretrained(
        cls, weights: str | os.PathLike[str], overrides: Sequence[str] = ()
    ) -> "Predictor":
        """Build the model that weights bring the config of, on a GPU where there is one.

        Args:
            weights: a name of the model zoo ("pixelclip_vitb16", "pixelclip_convnextb", each also
                with "_dino" behind, or "toy"), a model of the Hugging Face hub ("owner/name"), the
                folder of :meth:`save_pretrained`, a checkpoint, ours or a published one, or its
                address; see :func:`pixelclip.checkpoint.weights_download.fetch_weights`.
            overrides: keys and values in turn, as ``("MODEL.DEVICE", "cpu")``.

        Raises:
            OSError: the weights cannot be found or downloaded.
            ValueError: they are not a checkpoint, or bring no config.
        """
        return cls.from_config("", _check_weights(weights), overrides)

    @classmethod
    def from_config(
        cls,
        config: str | os.PathLike[str] | CfgNode = "",
        weights: str | os.PathLike[str] = "",
        overrides: Sequence[str] = (),
    ) -> "Predictor":
        """Build the model of a config, with weights, on ``MODEL.DEVICE`` (the CPU without a GPU).

        Args:
            config: path of a YAML file, the name of one of PixelCLIP's own (from any folder), or a
                Detectron2 config with PixelCLIP's keys. Default: what the weights bring.
            weights: see :meth:`from_pretrained`. Default: ``MODEL.WEIGHTS``, or without it CLIP's
                own weights (``MODEL.CLIP.PRETRAINED``); without a config, "pixelclip_vitb16".
            overrides: keys and values in turn, as ``("MODEL.DEVICE", "cpu")``, for a config file.

        Raises:
            FileNotFoundError: the config or the checkpoint does not exist.
            OSError: the weights cannot be downloaded.
            ValueError: an unusable value, or a checkpoint that does not fit the config.
        """
        model, cfg = _build(config, os.fspath(weights), overrides)
        predictor = cls(model, *_sizes(cfg))
        predictor._config = cfg
        return predictor

    def save_pretrained(self, folder: str | os.PathLike[str], license: str = "unknown") -> None:
        """Write the model as a folder for :meth:`from_pretrained`, here or on another machine.

        It holds the weights that prediction needs, the config, and a model card: README.md.

        Args:
            folder: a new or an empty one; its name is the model's in the card.
            license: of these weights, by the hub's identifier ("mit", ...), for the card.

        Raises:
            OSError: the folder is not empty, or cannot be written.
            ValueError: the predictor was made of a model without its config, or the config needs
                files that the folder cannot hold.
        """
        from pixelclip.inference.hub import write_model_folder

        name = os.path.basename(os.path.abspath(folder))
        write_model_folder(folder, self.model, self._known_config(), name, license)

    def push_to_hub(self, repo_id: str, license: str = "unknown", private: bool = False) -> str:
        """Publish the model on the Hugging Face hub, under the account of ``hf auth login``.

        All files appear in one commit, so that an interrupted upload changes nothing there.

        Args:
            repo_id: "owner/name"; the repository is made where it is missing.
            license: see :meth:`save_pretrained`.
            private: whether a new repository is.

        Returns:
            The address of the commit.

        Raises:
            OSError: the hub cannot be reached, or does not accept it.
            ValueError: see :meth:`save_pretrained`, or ``repo_id`` is not a name of a repository.
        """
        from pixelclip.inference.hub import push_model

        return push_model(repo_id, self.model, self._known_config(), license, private)

    def _known_config(self) -> CfgNode:
        if self._config is None:
            raise ValueError(
                "This Predictor was made of a model, whose config it does not know: build it with "
                "Predictor.from_pretrained or Predictor.from_config."
            )
        return self._config

    def __repr__(self) -> str:
        """One line: the image encoder, what it was built from, and the device."""
        encoder = type(self.model.image_encoder.visual).__name__
        size = f"min_size={self.min_size}, max_size={self.max_size}, batch_size={self.batch_size}"
        return f"Predictor({encoder} on {self.model.device}, {size})"

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
            image: a path, an https address, a PIL image, an array (H, W, 3) or a tensor (3, H, W)
                with values in 0..255, see :func:`pixelclip.data.images.to_rgb_pixels`; or a list or
                tuple of these.
            vocabulary: a list of class names, of which one may hold synonyms ("sofa, couch"); the
                name of a packaged vocabulary ("ade20k_150"); or the path of a text file, see
                :func:`pixelclip.data.vocabularies.read_vocabulary`.
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
        self._warn_of_unknown_words(names)
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

    def _warn_of_unknown_words(self, names: tuple[str, ...]) -> None:
        """Say once which words a CLIP that was trained on few words does not know."""
        if names in self._warned:
            return
        self._warned.add(names)
        words = self.model.text_encoder.find_unknown_words(
            [name for name in names if name != BACKGROUND_NAME]
        )
        if words:
            logger.warning(
                "This CLIP has never learned %s: its results for these words mean nothing.",
                ", ".join(map(repr, words)),
            )

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


def _check_weights(weights: Any) -> str:
    """The weights, unless they are what goes into a call of the predictor.

    Raises:
        TypeError: they are not a name, path or address.
        ValueError: they name an image.
    """
    if os.fspath(weights).lower().endswith(IMAGE_SUFFIXES):
        raise ValueError(
            f"{os.fspath(weights)!r} is an image, and a Predictor is made of weights: "
            f'Predictor.from_pretrained("{DEFAULT_MODEL}")(image, words).'
        )
    return os.fspath(weights)


def _build(
    config: str | os.PathLike[str] | CfgNode, weights: str, overrides: Sequence[str] = ()
) -> tuple[PixelCLIP, CfgNode]:
    """A config's model with weights, and the config."""
    cfg = load_predictor_config(config, weights, overrides)
    model = PixelCLIP(cfg, for_training=False).to(cfg.MODEL.DEVICE)
    PixelCLIPCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return model, cfg


def _sizes(cfg: CfgNode) -> tuple[int, int, int]:
    return cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, cfg.TEST.IMS_PER_BATCH


def load_predictor_config(
    config: str | os.PathLike[str] | CfgNode, weights: str, overrides: Sequence[str]
) -> CfgNode:
    """The config that :meth:`Predictor.from_config` builds its model of."""
    if not isinstance(config, CfgNode):
        is_chosen = config or "MODEL.WEIGHTS" in overrides[::2]
        weights = weights or ("" if is_chosen else DEFAULT_MODEL)
        cfg = load_config(os.fspath(config), overrides, weights)
        weights = cfg.MODEL.WEIGHTS
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
    return cfg
