"""CLIP's text encoder, frozen, for words and for prompts that are not words."""

import functools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pixelclip.modeling.transformer_block import (
    is_plain,
    run_block,
    run_causal_block,
    split_heads,
)

if TYPE_CHECKING:
    import open_clip


class TextEncoder(nn.Module):
    """The text tower of an open_clip CLIP; none of its parameters trains.

    The parameters keep open_clip's names.

    Args:
        clip: an open_clip CLIP model, whose text tower is shared, not copied.
        tokenizer: what its text tower was trained with; CLIP's own by default.
    """

    def __init__(
        self, clip: "open_clip.CLIP", tokenizer: "open_clip.SimpleTokenizer | None" = None
    ) -> None:
        super().__init__()
        if clip.text_pool_type != "argmax":
            raise ValueError(
                f"The text encoder pools by {clip.text_pool_type!r}; only CLIP's own pooling at "
                "the end token ('argmax') is supported."
            )
        if clip.attn_mask is None or not all(map(is_plain, clip.transformer.resblocks)):
            raise ValueError(
                "The text encoder is not CLIP's own: its attention is not causal, or its blocks "
                "are of another kind. Choose another MODEL.CLIP.ARCH, such as ViT-B-16-quickgelu."
            )
        self.token_embedding = clip.token_embedding
        self.positional_embedding = clip.positional_embedding
        self.transformer = clip.transformer
        self.ln_final = clip.ln_final
        self.text_projection = clip.text_projection
        self.context_length = int(clip.context_length)
        self._tokenizer: Any = tokenizer or _clips_tokenizer()
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

    def find_unknown_words(self, texts: Sequence[str]) -> list[str]:
        """Words that a reduced tokenizer splits further than CLIP's own, so that it never saw them.

        CLIP's own tokenizer knows all words that it can spell.
        """
        full = _clips_tokenizer()
        if len(self._tokenizer.encoder) >= len(full.encoder):
            return []
        words = dict.fromkeys(word for text in texts for word in re.findall(r"\w+", text.lower()))
        return [w for w in words if len(self._tokenizer.encode(w)) > len(full.encode(w))]

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
            (n, d) in the joint space, not L2-normalized.
        """
        length = int(end_positions.max()) + 1
        tokens = embeddings[:, :length] + self.positional_embedding[:length]
        for block in self.transformer.resblocks:
            tokens = run_block(block, tokens, is_causal=True)
        return self._pool(tokens, end_positions)

    def encode_continuations(self, prefix: Tensor, continuations: Tensor) -> Tensor:
        """Encode prompts that begin with the same tokens, whose encoding they share.

        Attention is causal, so what follows does not matter to the prefix.

        Args:
            prefix: (p, width) token embeddings, at least one.
            continuations: (n, tokens, width), the last of each its end token.

        Returns:
            (n, d) in the joint space, not L2-normalized.
        """
        start, length = len(prefix), continuations.shape[1]
        before = prefix[None] + self.positional_embedding[:start]  # (1, p, width)
        tokens = continuations + self.positional_embedding[start : start + length]
        for block in self.transformer.resblocks:
            _, keys, values = split_heads(block, before)
            tokens = run_causal_block(block, tokens, (keys, values))
            before = run_block(block, before, is_causal=True)
        ends = torch.full((len(tokens),), length - 1, device=tokens.device)
        return self._pool(tokens, ends)

    def _pool(self, tokens: Tensor, end_positions: Tensor) -> Tensor:
        """Project the encoded end tokens of (n, tokens, width) to (n, d)."""
        ends = tokens[torch.arange(len(tokens), device=tokens.device), end_positions]  # (n, width)
        with torch.autocast(tokens.device.type, enabled=False):
            ends = self.ln_final(ends.to(self.positional_embedding.dtype))
            if isinstance(self.text_projection, nn.Linear):
                return self.text_projection(ends)
            return ends @ self.text_projection

    def forward(self, ids: Tensor) -> Tensor:
        """Encode token ids (n, context length) to (n, d), not L2-normalized."""
        return self.encode_embeddings(self.embed_tokens(ids), find_end_positions(ids))


def find_end_positions(ids: Tensor) -> Tensor:
    """Positions (n,) of the end tokens in token ids (n, tokens): CLIP's has the highest id."""
    return ids.argmax(dim=-1)


@functools.cache
def _clips_tokenizer() -> Any:
    import open_clip

    return open_clip.SimpleTokenizer()
