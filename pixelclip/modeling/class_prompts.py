"""Learnable class prompts: one text prompt per cluster whose words are free vectors.

Shapes: K clusters, L learnable tokens each, T templates, d the width of the joint space.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelclip.modeling.text_encoder import TextEncoder, find_end_positions


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
    slots: Tensor

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
        template_ids, slots = (torch.stack(tensors) for tensors in zip(*tokenized, strict=True))
        self.register_buffer("template_ids", template_ids, persistent=False)  # (T, context)
        self.register_buffer("slots", slots, persistent=False)  # (T, L)
        vocabulary_size = text_encoder.token_embedding.num_embeddings
        random_ids = torch.randint(vocabulary_size, (num_clusters, prompt_length))
        self.tokens = nn.Parameter(text_encoder.embed_tokens(random_ids).detach().clone())

    def forward(self, text_encoder: TextEncoder) -> Tensor:
        """Cluster embeddings (K, d); gradients reach ``tokens`` through the text encoder.

        Of one template they are what the text encoder gives, not L2-normalised; of several, the
        mean of the normalised embeddings.
        """
        embeddings = [
            self._encode(text_encoder, ids, slots)
            for ids, slots in zip(self.template_ids, self.slots, strict=True)
        ]
        if len(embeddings) == 1:
            return embeddings[0]
        return F.normalize(torch.stack(embeddings), dim=-1).mean(dim=0)

    def _encode(self, text_encoder: TextEncoder, template_ids: Tensor, slots: Tensor) -> Tensor:
        """Embeddings (K, d) in the template of token ids (context,) with slots (L,)."""
        template = text_encoder.embed_tokens(template_ids)  # (context, width)
        template = template.to(self.tokens.dtype).expand(len(self.tokens), -1, -1)
        prompts = template.index_copy(1, slots, self.tokens)  # (K, context, width)
        end = find_end_positions(template_ids[None]).expand(len(prompts))  # (K,)
        return text_encoder.encode_embeddings(prompts, end)


def _tokenize_template(
    text_encoder: TextEncoder, template: str, prompt_length: int
) -> tuple[Tensor, Tensor]:
    """Token ids (context,) of the template with L placeholders, and their positions (L,)."""
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
    return ids, torch.nonzero(ids == placeholder).flatten()
