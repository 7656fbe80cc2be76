"""Learnable class prompts: one text prompt per cluster whose words are free vectors."""

import torch
from torch import Tensor, nn

from pixelclip.modeling.text_encoder import TextEncoder, find_end_positions


class ClassPrompts(nn.Module):
    """K prompts of L learnable token embeddings each, inside a fixed template.

    Source: paper section 3.2.

    Args:
        text_encoder: gives the template's tokens and the initial token embeddings.
        num_clusters: K.
        prompt_length: L.
        template: text with one ``{}``, where the L learnable tokens stand.

    Raises:
        ValueError: a number is below one, the template has not exactly one ``{}``, or the prompt
            does not fit into the text encoder's context.
    """

    tokens: nn.Parameter
    template_ids: Tensor
    slots: Tensor

    def __init__(
        self, text_encoder: TextEncoder, num_clusters: int, prompt_length: int, template: str
    ) -> None:
        super().__init__()
        if num_clusters < 1 or prompt_length < 1:
            raise ValueError(
                f"NUM_CLUSTERS is {num_clusters} and PROMPT_LENGTH is {prompt_length}; both must "
                "be at least 1."
            )
        template_ids, slots = _tokenize_template(text_encoder, template, prompt_length)
        self.register_buffer("template_ids", template_ids, persistent=False)
        self.register_buffer("slots", slots, persistent=False)
        vocabulary_size = text_encoder.token_embedding.num_embeddings
        random_ids = torch.randint(vocabulary_size, (num_clusters, prompt_length))
        self.tokens = nn.Parameter(text_encoder.embed_tokens(random_ids).detach().clone())

    def forward(self, text_encoder: TextEncoder) -> Tensor:
        """Cluster embeddings (K, d), not L2-normalised; gradients reach ``tokens``."""
        template = text_encoder.embed_tokens(self.template_ids)  # (tokens, width)
        template = template.to(self.tokens.dtype).expand(len(self.tokens), -1, -1)
        prompts = template.index_copy(1, self.slots, self.tokens)  # (K, tokens, width)
        end = find_end_positions(self.template_ids[None]).expand(len(prompts))  # (K,)
        return text_encoder.encode_embeddings(prompts, end)


def _tokenize_template(
    text_encoder: TextEncoder, template: str, prompt_length: int
) -> tuple[Tensor, Tensor]:
    """Token ids (tokens,) of the template with L placeholders, and their positions (L,)."""
    if template.count("{}") != 1:
        raise ValueError(
            f"PROMPT_TEMPLATE is {template!r}; it must hold exactly one {{}}, the place of the "
            "learnable tokens."
        )
    placeholder = text_encoder.tokenize(["{}"])[0, 1]
    ids = text_encoder.tokenize([template.format(" ".join(["{}"] * prompt_length))])[0]
    slots = torch.nonzero(ids == placeholder).flatten()
    if len(slots) != prompt_length:
        raise ValueError(
            f"PROMPT_TEMPLATE {template!r} does not keep its {{}} apart from the text around it; "
            "put a blank on both sides."
        )
    return ids, slots
