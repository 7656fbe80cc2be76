"""Learnable class prompts: one text prompt per cluster whose words are free vectors.

For comparison, free vectors or class names stand for the clusters. Each is a module whose call with
the text encoder returns cluster embeddings (K, d).

Shapes: K clusters, L learnable tokens each, T templates, d the width of the joint space.
"""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from pixelclip.data.vocabularies import get_vocabulary
from pixelclip.modeling.prompt_templates import get_prompt_templates
from pixelclip.modeling.text_classifier import build_text_classifier
from pixelclip.modeling.text_encoder import TextEncoder, find_end_positions

CLUSTER_EMBEDDINGS = ("prompts", "free_vectors", "class_names")


class ClassPrompts(nn.Module):
    """K prompts of L learnable token embeddings each, inside one or several fixed templates.

    Source: paper section 3.2.

    Args:
        text_encoder: gives the templates' tokens and the initial token embeddings.
        num_clusters: K.
        prompt_length: L.
        templates: T texts with one ``{}`` each, where the L learnable tokens stand.

    Raises:
        ValueError: a number is below one, a template has not exactly one ``{}``, or a prompt does
            not fit into the text encoder's context.
    """

    tokens: nn.Parameter
    template_ids: Tensor

    def __init__(
        self,
        text_encoder: TextEncoder,
        num_clusters: int,
        prompt_length: int,
        templates: Sequence[str],
    ) -> None:
        super().__init__()
        if num_clusters < 1 or prompt_length < 1:
            raise ValueError(
                f"NUM_CLUSTERS is {num_clusters} and PROMPT_LENGTH is {prompt_length}; both must "
                "be at least 1."
            )
        tokenized = [_tokenize_template(text_encoder, t, prompt_length) for t in templates]
        template_ids = torch.stack([ids for ids, _ in tokenized])
        self.register_buffer("template_ids", template_ids, persistent=False)  # (T, context)
        # First slot, and number of tokens including the end token, as numbers: asking a GPU waits.
        lengths = (find_end_positions(template_ids) + 1).tolist()
        self._spans = [(slot, length) for (_, slot), length in zip(tokenized, lengths, strict=True)]
        vocabulary_size = text_encoder.token_embedding.num_embeddings
        random_ids = torch.randint(vocabulary_size, (num_clusters, prompt_length))
        self.tokens = nn.Parameter(text_encoder.embed_tokens(random_ids).detach().clone())

    def forward(self, text_encoder: TextEncoder) -> Tensor:
        """Cluster embeddings (K, d); gradients reach ``tokens`` through the text encoder.

        They are the mean over the templates of what the text encoder gives, not L2-normalized.
        """
        embeddings = [
            self._encode(text_encoder, ids[:length], first_slot)
            for ids, (first_slot, length) in zip(self.template_ids, self._spans, strict=True)
        ]
        return torch.stack(embeddings).mean(dim=0)

    def _encode(self, text_encoder: TextEncoder, template_ids: Tensor, first_slot: int) -> Tensor:
        """Embeddings (K, d) in the template of token ids (tokens,), the last its end token."""
        template = text_encoder.embed_tokens(template_ids).to(self.tokens.dtype)  # (tokens, width)
        clusters, length, _ = self.tokens.shape
        suffix = template[first_slot + length :].expand(clusters, -1, -1)
        prompts = torch.cat([self.tokens, suffix], dim=1)  # (K, L + suffix, width)
        return text_encoder.encode_continuations(template[:first_slot], prompts)


def _tokenize_template(
    text_encoder: TextEncoder, template: str, prompt_length: int
) -> tuple[Tensor, int]:
    """Token ids (context,) of the template with L placeholders, and where the first one stands."""
    if template.count("{}") != 1:
        raise ValueError(
            f"The prompt template {template!r} must hold exactly one {{}}, the place of the "
            "learnable tokens: check PROMPT_TEMPLATE and PROMPT_ENSEMBLE."
        )
    placeholder = text_encoder.tokenize(["{}"])[0, 1]
    # With blanks around it, or a full stop behind it would become part of the last placeholder.
    filled = template.replace("{}", f" {' '.join(['{}'] * prompt_length)} ")
    try:
        ids = text_encoder.tokenize([filled])[0]
    except ValueError as error:
        raise ValueError(f"{error} Or lower PROMPT_LENGTH, which is {prompt_length}.") from error
    return ids, int((ids == placeholder).int().argmax())


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
