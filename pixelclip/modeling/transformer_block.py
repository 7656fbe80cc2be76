"""Residual attention blocks of open_clip's transformers, run on our own.

The same numbers as open_clip's own call, but tokens stay in one memory layout, which multi-head
attention would transpose twice, and CLIP's activation keeps one tensor for the backward pass
instead of three.

Shapes: B sequences, T tokens, D the width of the transformer, H attention heads of width Dh.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# Keys and values, (B, H, T, Dh) each, or (1, H, T, Dh) for all sequences.
Context = tuple[Tensor, Tensor]


def run_block(block: Any, tokens: Tensor, is_causal: bool = False) -> Tensor:
    """Run one of open_clip's residual attention blocks on tokens (B, T, D).

    Args:
        block: a ResidualAttentionBlock; of another kind, its own call is used.
        tokens: (B, T, D).
        is_causal: each token attends to itself and those before it, not to all; only with a
            ResidualAttentionBlock.
    """
    if is_plain(block):
        queries, keys, values = split_heads(block, tokens)
        attended = F.scaled_dot_product_attention(queries, keys, values, is_causal=is_causal)
        return _add_residuals(block, tokens, attended)
    if block.attn.batch_first:
        return block(tokens)
    return block(tokens.transpose(0, 1)).transpose(0, 1)


def is_plain(block: Any) -> bool:
    """Whether it is CLIP's own kind of block, which this file knows how to run."""
    return type(block).__name__ == "ResidualAttentionBlock"


def run_causal_block(block: Any, tokens: Tensor, context: Context) -> Tensor:
    """Run a block causally on the tokens (B, T, D) that follow the ones of ``context``."""
    queries, keys, values = split_heads(block, tokens)
    all_keys, all_values = (
        torch.cat([before.to(own.dtype).expand(len(own), -1, -1, -1), own], dim=2)
        for before, own in zip(context, (keys, values), strict=True)
    )
    before, length = context[0].shape[2], tokens.shape[1]
    visible = torch.ones(length, before + length, dtype=torch.bool, device=tokens.device)
    attended = F.scaled_dot_product_attention(
        queries, all_keys, all_values, attn_mask=visible.tril(before)
    )
    return _add_residuals(block, tokens, attended)


def split_heads(block: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B, H, T, Dh) of the normalized tokens."""
    attention = block.attn
    projected = F.linear(block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias)
    # (B, T, 3*D) -> (B, T, 3, H, Dh) -> (3, B, H, T, Dh)
    heads = projected.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    queries, keys, values = heads.unbind(0)
    return queries, keys, values


def join_heads(block: Any, attended: Tensor) -> Tensor:
    """Output projection (B, T, D) of what the heads attended to, (B, H, T, Dh)."""
    return block.attn.out_proj(attended.transpose(1, 2).flatten(2))  # (B, T, H*Dh)


def run_mlp(block: Any, tokens: Tensor) -> Tensor:
    """The block's perceptron on (B, T, D), with its norm."""
    normalized = block.ln_2(tokens)
    if not (is_plain(block) and type(block.mlp.gelu).__name__ == "QuickGELU"):
        return block.mlp(normalized)
    return block.mlp.c_proj(quick_gelu(block.mlp.c_fc(normalized)))


def quick_gelu(hidden: Tensor) -> Tensor:
    """``hidden * sigmoid(1.702 * hidden)``, overwriting ``hidden``."""
    return F.silu(hidden.mul_(1.702)).div_(1.702)


def _add_residuals(block: Any, tokens: Tensor, attended: Tensor) -> Tensor:
    tokens = tokens + block.ls_1(join_heads(block, attended))
    return tokens + block.ls_2(run_mlp(block, tokens))
