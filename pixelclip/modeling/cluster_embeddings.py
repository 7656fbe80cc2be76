"""What stands for the clusters: class prompts, or for comparison something simpler.

Each is a module whose call with the text encoder returns cluster embeddings (K, d).
"""

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from pixelclip.data.vocabularies import get_vocabulary
from pixelclip.modeling.class_prompts import ClassPrompts
from pixelclip.modeling.prompt_templates import get_prompt_templates
from pixelclip.modeling.text_classifier import build_text_classifier
from pixelclip.modeling.text_encoder import TextEncoder

CLUSTER_EMBEDDINGS = ("prompts", "free_vectors", "class_names")


class FreeVectors(nn.Module):
    """K learnable vectors in the joint space that no text encoder constrains.

    Args:
        num_clusters: K.
        embedding_dim: d.
    """

    def __init__(self, num_clusters: int, embedding_dim: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(num_clusters, embedding_dim) / embedding_dim**0.5)

    def forward(self, text_encoder: TextEncoder) -> Tensor:
        """The vectors (K, d) themselves."""
        return self.vectors


class ClassNames(nn.Module):
    """The text features of K class names, which do not train.

    Args:
        text_encoder: embeds the names.
        class_names: K names.
        templates: prompt templates to average over.
    """

    features: Tensor

    def __init__(
        self, text_encoder: TextEncoder, class_names: tuple[str, ...], templates: tuple[str, ...]
    ) -> None:
        super().__init__()
        features = build_text_classifier(text_encoder, class_names, templates)
        self.register_buffer("features", features)

    def forward(self, text_encoder: TextEncoder) -> Tensor:
        """The names' features (K, d), unit vectors."""
        return self.features


def build_cluster_embeddings(cfg: CfgNode, text_encoder: TextEncoder) -> nn.Module:
    """Build what ``MODEL.PIXELCLIP.CLUSTER_EMBEDDINGS`` names.

    Raises:
        ValueError: naming the value and the accepted ones.
    """
    node = cfg.MODEL.PIXELCLIP
    kind = node.CLUSTER_EMBEDDINGS
    if kind == "prompts":
        ensemble = node.PROMPT_ENSEMBLE
        templates = get_prompt_templates(ensemble) if ensemble else (node.PROMPT_TEMPLATE,)
        return ClassPrompts(text_encoder, node.NUM_CLUSTERS, node.PROMPT_LENGTH, templates)
    if kind == "free_vectors":
        return FreeVectors(node.NUM_CLUSTERS, text_encoder.embedding_dim)
    if kind == "class_names":
        names = get_vocabulary(node.CLUSTER_NAMES)
        return ClassNames(text_encoder, names, get_prompt_templates(node.TEST_TEMPLATES))
    raise ValueError(
        f"MODEL.PIXELCLIP.CLUSTER_EMBEDDINGS is {kind!r}; it must be one of "
        f"{', '.join(CLUSTER_EMBEDDINGS)}."
    )
