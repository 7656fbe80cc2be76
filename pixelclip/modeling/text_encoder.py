"""CLIP's text encoder, frozen, for words and for prompts that are not words."""

from collections.abc import Sequence

import open_clip
import torch
from torch import Tensor, nn


class TextEncoder(nn.Module):
    """The text tower of an open_clip CLIP; none of its parameters trains.

    The parameters keep open_clip's names.

    Args:
        clip: an open_clip CLIP model, whose text tower is shared, not copied.
        tokenizer: what its text tower was trained with; CLIP's own by default.
    """

    attn_mask: Tensor

    def __init__(
        self, clip: open_clip.CLIP, tokenizer: open_clip.SimpleTokenizer | None = None
    ) -> None:
        super().__init__()
        if clip.text_pool_type != "argmax":
            raise ValueError(
                f"The text encoder pools by {clip.text_pool_type!r}; only CLIP's own pooling at "
                "the end token ('argmax') is supported."
            )
        self.token_embedding = clip.token_embedding
        self.positional_embedding = clip.positional_embedding
        self.transformer = clip.transformer
        self.ln_final = clip.ln_final
        self.text_projection = clip.text_projection
        self.register_buffer("attn_mask", clip.attn_mask, persistent=False)
        self.context_length = int(clip.context_length)
        self._tokenizer = tokenizer or open_clip.SimpleTokenizer()
        self.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.token_embedding.weight.device

    @property
    def embedding_dim(self) -> int:
        """Width d of the joint embedding space."""
        if isinstance(self.text_projection, nn.Linear):
            return self.text_projection.out_features
        return self.text_projection.shape[1]

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token ids (n, context length) int64 of n texts, with start and end tokens.

        Raises:
            ValueError: a text does not fit into the context.
        """
        # One position more than the context holds: it stays zero unless a text is too long.
        ids = self._tokenizer(list(texts), context_length=self.context_length + 1)
        too_long = torch.nonzero(ids[:, -1]).flatten().tolist()
        if too_long:
            raise ValueError(
                f"The text {texts[too_long[0]]!r} does not fit into CLIP's context of "
                f"{self.context_length - 2} tokens: shorten the class name or the prompt template."
            )
        return ids[:, :-1].to(self.device)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Token embeddings (..., width) of token ids (...), without positions."""
        return self.token_embedding(ids)

    def encode_embeddings(self, embeddings: Tensor, end_positions: Tensor) -> Tensor:
        """Encode prompts given as token embeddings.

        Attention is causal, so nothing after the last end token matters and it is left out.

        Args:
            embeddings: (n, tokens, width), without positions.
            end_positions: (n,) int64, where each prompt's end token stands.

        Returns:
            (n, d) in the joint space, not L2-normalised.
        """
        length = int(end_positions.max()) + 1
        tokens = embeddings[:, :length] + self.positional_embedding[:length]
        tokens = self.transformer(tokens, attn_mask=self.attn_mask[:length, :length])
        tokens = self.ln_final(tokens)  # (n, length, width)
        ends = tokens[torch.arange(len(tokens), device=tokens.device), end_positions]  # (n, width)
        if isinstance(self.text_projection, nn.Linear):
            return self.text_projection(ends)
        return ends @ self.text_projection

    def forward(self, ids: Tensor) -> Tensor:
        """Encode token ids (n, context length) to (n, d), not L2-normalised."""
        return self.encode_embeddings(self.embed_tokens(ids), find_end_positions(ids))


def find_end_positions(ids: Tensor) -> Tensor:
    """Positions (n,) of the end tokens in token ids (n, tokens): CLIP's has the highest id."""
    return ids.argmax(dim=-1)
