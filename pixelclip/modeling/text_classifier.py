"""A classifier out of words: mean text embeddings of class names in prompt templates.

Shapes: C classes, T templates, d the width of the joint space.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelclip.data.vocabularies import SYNONYM_SEPARATOR
from pixelclip.modeling.prompt_templates import fill_template
from pixelclip.modeling.text_encoder import TextEncoder

_TEXTS_PER_BATCH = 256


@torch.no_grad()
def build_text_classifier(
    text_encoder: TextEncoder, class_names: Sequence[str], templates: Sequence[str]
) -> Tensor:
    """Unit vectors (C, d) float32, one per class: the normalised mean over the templates.

    Raises:
        ValueError: a filled template does not fit into the text encoder's context.
    """
    features = embed_class_names(text_encoder, class_names, templates)
    return F.normalize(features.mean(dim=1), dim=-1)


@torch.no_grad()
def embed_class_names(
    text_encoder: TextEncoder, class_names: Sequence[str], templates: Sequence[str]
) -> Tensor:
    """L2-normalised text features (C, T, d) float32 of each class in each template.

    The synonyms of a class ("sofa, couch") are embedded each by itself, normalised, averaged per
    template and normalised again.
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
