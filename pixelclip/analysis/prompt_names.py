"""What the class prompts have come to mean: the class names that are nearest to each of them.

Shapes: K class prompts, C classes, N masks, d the width of the joint space.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelclip.meta_arch import PixelCLIP
from pixelclip.modeling.prompt_templates import get_prompt_templates
from pixelclip.modeling.text_classifier import build_text_classifier


@dataclass(frozen=True)
class NearName:
    """A class name and its cosine, in -1..1, with a class prompt."""

    name: str
    cosine: float


@torch.no_grad()
def find_nearest_names(
    model: PixelCLIP, class_names: Sequence[str], count: int = 3, templates: str | None = None
) -> list[list[NearName]]:
    """Find the class names that are nearest to each of a model's class prompts.

    Args:
        model: of any weights; its own vocabulary does not matter and stays.
        class_names: C names of any vocabulary; synonyms are separated by a comma and a blank.
        count: how many names, or all where there are fewer.
        templates: prompt template set of the names; ``MODEL.PIXELCLIP.TEST_TEMPLATES`` by default.

    Returns:
        For each of the K prompts its nearest names, the nearest first.

    Raises:
        ValueError: an unknown template set, or a name too long for CLIP's context.
    """
    prompts = model.class_prompts(model.text_encoder).float()  # (K, d)
    sentences = get_prompt_templates(templates or model.test_templates)
    classifier = build_text_classifier(model.text_encoder, class_names, sentences)  # (C, d)
    cosines = F.normalize(prompts, dim=-1) @ classifier.T  # (K, C)
    values, indices = cosines.topk(min(count, len(class_names)), dim=1)
    return [
        [NearName(class_names[i], cosine) for i, cosine in zip(row, of_row, strict=True)]
        for row, of_row in zip(indices.tolist(), values.tolist(), strict=True)
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
        masks, image_index = model.training_masks(inputs)
        features = model.teacher(model.preprocess([x["image"] for x in inputs]))
        scores = model.score_masks(features, masks, image_index, prompts)
        counts += torch.bincount(model.assign_masks(scores), minlength=len(prompts))
    return counts
