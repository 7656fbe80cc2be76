"""What the class prompts mean: the class names nearest to each, and both in a plane.

Shapes: K class prompts, C classes, d the width of the joint space.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pixelclip.meta_arch import PixelCLIP
from pixelclip.modeling.prompt_templates import get_prompt_templates
from pixelclip.modeling.text_classifier import build_text_classifier
from pixelclip.utils.installation import import_optional


class NearName(NamedTuple):
    """A class name and its cosine, in -1..1, with a class prompt."""

    name: str
    cosine: float


@torch.no_grad()
def find_nearest_names(
    model: PixelCLIP, class_names: Sequence[str], count: int = 3, templates: str | None = None
) -> list[list[NearName]]:
    """Find the class names that are nearest to each of a model's class prompts.

    Args:
        model: its own vocabulary does not matter and stays.
        class_names: C names of any vocabulary; synonyms are separated by a comma and a blank.
        count: how many names, or all where there are fewer.
        templates: prompt template set of the names; ``MODEL.PIXELCLIP.TEST_TEMPLATES`` by default.

    Returns:
        For each of the K prompts its nearest names, the nearest first.

    Raises:
        ValueError: an unknown template set, or a name too long for CLIP's context.
    """
    prompts = model.class_prompts(model.text_encoder).float()  # (K, d)
    sentences = get_prompt_templates(templates or model.text_classifier.templates)
    classifier = build_text_classifier(model.text_encoder, class_names, sentences)  # (C, d)
    cosines = F.normalize(prompts, dim=-1) @ classifier.T  # (K, C)
    values, indices = cosines.topk(min(count, len(class_names)), dim=1)
    return [
        [NearName(class_names[index], cosine) for index, cosine in zip(*row, strict=True)]
        for row in zip(indices.tolist(), values.tolist(), strict=True)
    ]


@torch.no_grad()
def count_masks_of_prompts(
    model: PixelCLIP, batches: Iterable[Sequence[Mapping[str, Any]]]
) -> Tensor:
    """Count the masks (K,) int64 that each class prompt gets, clustered as in training.

    Args:
        model: its teacher sees the images; nothing is trained.
        batches: training inputs, see :class:`pixelclip.meta_arch.PixelCLIP`; the masks of a batch
            are clustered together.
    """
    prompts = model.class_prompts(model.text_encoder)  # (K, d)
    counts = torch.zeros(len(prompts), dtype=torch.long, device=model.device)
    for inputs in batches:
        logits = model.assignment.logits(model.encode_masks(inputs).features, prompts)
        counts += torch.bincount(
            model.assignment.probabilities(logits).argmax(dim=1), minlength=len(prompts)
        )
    return counts


def embed_in_plane(
    prompts: NDArray[np.floating], names: NDArray[np.floating], seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find places in a plane, by t-SNE, where what is similar is near.

    The prompts' mean and the names' mean are taken away first: texts that follow one template
    share a direction, which would keep the two groups apart.

    Args:
        prompts, names: cluster embeddings (K, d), and text features (C, d) of class names.

    Returns:
        Places (K, 2) of the prompts and (C, 2) of the names, equal for equal seeds.

    Raises:
        ImportError, ValueError: scikit-learn is missing; fewer than three points.

    Source: van der Maaten and Hinton, "Visualizing data using t-SNE", 2008.
    """
    import_optional("sklearn", "visualization")
    from sklearn.manifold import TSNE  # type: ignore[import-untyped]

    points = np.concatenate([_direction(prompts), _direction(names)])
    if len(points) < 3:
        raise ValueError(f"{len(points)} prompts and names make no plane; expected at least 3.")
    perplexity = min(30.0, (len(points) - 1) / 3)  # the default, but fewer than there are points
    tsne = TSNE(metric="cosine", perplexity=perplexity, random_state=seed)
    places = tsne.fit_transform(points).astype(float)
    return places[: len(prompts)], places[len(prompts) :]


def _direction(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    """Unit vectors about their mean; a single one keeps its place."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    centered = unit - unit.mean(axis=0) if len(unit) > 1 else unit
    return centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-12)
