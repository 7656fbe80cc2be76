"""The classes that a model tells apart: their text features, the cache of them, the background.

Shapes: C classes, R background words, T templates, n embedded names, d the width of the joint
space.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch import Tensor, nn
from torch.nn import functional as F

from pixelclip.data.vocabularies import SYNONYM_SEPARATOR, validate_class_names
from pixelclip.modeling.prompt_templates import fill_template, get_prompt_templates
from pixelclip.modeling.text_encoder import TextEncoder

_TEXTS_PER_BATCH = 32

# No cosine is below it, so that a background of this score never wins.
NO_THRESHOLD = -1.0

# Text features of this many vocabularies are kept: a training evaluates on the same few data sets
# again and again.
_MAX_CACHED = 16


@torch.no_grad()
def build_text_classifier(
    text_encoder: TextEncoder, class_names: Sequence[str], templates: Sequence[str]
) -> Tensor:
    """Unit vectors (C, d) float32, one per class: the normalized mean over the templates.

    Raises:
        ValueError: a filled template does not fit into the text encoder's context.
    """
    features = embed_class_names(text_encoder, class_names, templates)
    return F.normalize(features.mean(dim=1), dim=-1)


@torch.no_grad()
def embed_class_names(
    text_encoder: TextEncoder, class_names: Sequence[str], templates: Sequence[str]
) -> Tensor:
    """L2-normalized text features (C, T, d) float32 of each class in each template.

    The synonyms of a class ("sofa, couch") are embedded one by one, normalized, averaged per
    template and normalized again.
    """
    # A comma without a blank belongs to the name.
    synonyms = [name.split(SYNONYM_SEPARATOR) for name in class_names]
    texts = [fill_template(t, word) for words in synonyms for word in words for t in templates]
    features = torch.cat(list(_embed_texts(text_encoder, texts)))  # (words * T, d)
    features = F.normalize(features.float(), dim=-1)
    features = features.view(-1, len(templates), features.shape[-1])  # (words, T, d)
    by_class = features.split([len(words) for words in synonyms])
    return torch.stack([F.normalize(words.mean(dim=0), dim=-1) for words in by_class])


def _embed_texts(text_encoder: TextEncoder, texts: Sequence[str]) -> Iterator[Tensor]:
    ids = text_encoder.tokenize(texts)  # all of them first, so that a long text is refused at once
    for batch in ids.split(_TEXTS_PER_BATCH):
        yield text_encoder(batch)


def cosine_similarity(features: Tensor, vectors: Tensor) -> Tensor:
    """Cosines (..., n) between features (..., d) and vectors (n, d)."""
    return F.normalize(features, dim=-1) @ F.normalize(vectors, dim=-1).T


def cosine_maps(features: Tensor, vectors: Tensor) -> Tensor:
    """Cosines (B, n, h, w) float32 between dense features (B, h, w, d) and vectors (n, d)."""
    with torch.autocast(features.device.type, enabled=False):
        return cosine_similarity(features.float(), vectors.float()).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Background:
    """What a pixel must be to count as the background class, everything that no other name is.

    Args:
        threshold: a pixel whose best similarity (a cosine) is below it is background; -1 for none.
        words: a pixel that resembles one of these more than every class is background. Without
            words and threshold, the class's own name is the only word.
    """

    threshold: float = NO_THRESHOLD
    words: tuple[str, ...] = ()

    def names(self, class_names: Sequence[str], index: int) -> list[str]:
        """The names to embed: the other classes in order, then the background words."""
        words = list(self.words)
        if not words and self.threshold <= NO_THRESHOLD:
            words = [class_names[index]]
        return [*class_names[:index], *class_names[index + 1 :], *words]

    def merge(self, scores: Tensor, num_classes: int, index: int) -> Tensor:
        """Scores per class (..., C), out of the scores of :meth:`names` (..., C - 1 + R)."""
        others, words = scores[..., : num_classes - 1], scores[..., num_classes - 1 :]
        threshold = torch.full_like(scores[..., :1], self.threshold)
        background = torch.cat([threshold, words], dim=-1).amax(dim=-1, keepdim=True)  # (..., 1)
        return torch.cat([others[..., :index], background, others[..., index:]], dim=-1)


class TextClassifier:
    """Scores features by the words of a vocabulary, whose text features it keeps.

    It is not a module: what holds it does not own the text encoder's parameters twice.

    Args:
        text_encoder: embeds the names.
        templates: name of the prompt template set that :meth:`set_names` takes by default.
        background: what counts as a vocabulary's background class by default.
        default_dataset: data set whose classes are used until others are set; None for none.

    Attributes:
        class_names: C names; () until a vocabulary is set.

    Raises:
        ValueError: an unknown template set.
    """

    def __init__(
        self,
        text_encoder: TextEncoder,
        templates: str = "imagenet_select",
        background: Background | None = None,
        default_dataset: str | None = None,
    ) -> None:
        get_prompt_templates(templates)
        self.text_encoder = text_encoder
        self.templates = templates
        self.background = background or Background()
        self.default_dataset = default_dataset
        self.class_names: tuple[str, ...] = ()
        self._embedded: tuple[tuple[str, ...], str] | None = None  # names and templates
        self._background: tuple[Background, int] | None = None  # with its class's index
        self._clusters: nn.Module | None = None
        self._features: Tensor | None = None
        # The latest one used is the last.
        self._cache: dict[tuple[tuple[str, ...], str], Tensor] = {}

    def set_names(
        self,
        class_names: Sequence[str],
        templates: str | None = None,
        background_index: int | None = None,
        background: Background | None = None,
    ) -> None:
        """Choose the classes that the model segments from now on.

        Args:
            class_names: C names; synonyms of one class are separated by a comma and a blank.
            templates: name of a prompt template set; ``MODEL.PIXELCLIP.TEST_TEMPLATES`` by default.
            background_index: which of the classes is the background, if any.
            background: what counts as background; by default what ``TEST.BACKGROUND_THRESHOLD``
                and ``.BACKGROUND_WORDS`` say.

        Raises:
            ValueError: no name, an empty name, an unknown template set, a name too long for
                CLIP's context, or a background index that is not a class's.
        """
        names = tuple(validate_class_names(class_names))
        rule = self.background if background is None else background
        embedded = names
        if background_index is not None:
            if not 0 <= background_index < len(names):
                raise ValueError(
                    f"background_index is {background_index}; the vocabulary has {len(names)} "
                    "classes."
                )
            embedded = tuple(rule.names(names, background_index))
        if not embedded:
            raise ValueError(
                f"The vocabulary {list(names)} has nothing but the background, which a threshold "
                "tells from other classes: add a class."
            )
        key = (embedded, self.templates if templates is None else templates)
        self._features = self._embed(key)
        self.class_names, self._embedded, self._clusters = names, key, None
        self._background = None if background_index is None else (rule, background_index)

    def set_clusters(self, class_prompts: nn.Module) -> None:
        """Let the K cluster embeddings that class prompts give be the classes."""
        self._clusters, self._background = class_prompts, None
        self._features = self._embed_clusters(class_prompts)
        self.class_names = tuple(f"cluster {index}" for index in range(len(self._features)))

    def clear_text_cache(self, *_of_hook: object) -> None:
        """Compute all text features again, because the weights have changed."""
        self._features = None
        self._cache.clear()

    @property
    def features(self) -> Tensor:
        """Unit vectors (n, d) of the embedded names: the classes' but for the background rule.

        Raises:
            ValueError: no vocabulary was set, and there is no default data set with classes.
        """
        if self._features is None:
            if self._clusters is not None:
                self._features = self._embed_clusters(self._clusters)
            elif self._embedded is not None:
                self._features = self._embed(self._embedded)
            else:
                self._set_default_names()
        assert self._features is not None
        self._features = self._features.to(self.text_encoder.device)
        return self._features

    def scores(self, features: Tensor) -> Tensor:
        """Cosines (..., C) of dense or pooled features (..., d) with the classes.

        A background class has the score that the vocabulary's :class:`Background` gives it.
        """
        cosines = cosine_similarity(features, self.features)  # (..., n)
        if self._background is None:
            return cosines
        rule, index = self._background
        return rule.merge(cosines, len(self.class_names), index)

    @torch.no_grad()
    def _embed_clusters(self, class_prompts: nn.Module) -> Tensor:
        return F.normalize(class_prompts(self.text_encoder).float(), dim=-1)  # (K, d)

    def _embed(self, key: tuple[tuple[str, ...], str]) -> Tensor:
        features = self._cache.pop(key, None)
        if features is None:
            names, templates = key
            features = build_text_classifier(
                self.text_encoder, names, get_prompt_templates(templates)
            )
            if len(self._cache) == _MAX_CACHED:
                del self._cache[next(iter(self._cache))]
        self._cache[key] = features
        return features

    def _set_default_names(self) -> None:
        metadata = MetadataCatalog.get(self.default_dataset) if self.default_dataset else None
        names = getattr(metadata, "stuff_classes", None)
        if not names:
            raise ValueError(
                f"The model has no vocabulary: DATASETS.TEST[0] is {self.default_dataset!r}, which "
                "has no stuff_classes. Call model.set_vocabulary([...]) or name a registered data "
                "set."
            )
        self.set_names(names, background_index=getattr(metadata, "background_index", None))


def build_classifier(cfg: CfgNode, text_encoder: TextEncoder) -> TextClassifier:
    """Build what ``MODEL.PIXELCLIP.TEST_TEMPLATES`` and ``TEST.BACKGROUND_*`` say.

    Its classes are those of the first test data set until others are set.
    """
    return TextClassifier(
        text_encoder,
        cfg.MODEL.PIXELCLIP.TEST_TEMPLATES,
        Background(cfg.TEST.BACKGROUND_THRESHOLD, tuple(cfg.TEST.BACKGROUND_WORDS)),
        default_dataset=cfg.DATASETS.TEST[0] if len(cfg.DATASETS.TEST) else None,
    )
