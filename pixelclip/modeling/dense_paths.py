"""Paths through the last block of a CLIP ViT that keep a vector for every patch.

Shapes: B images, T = 1 + h*w tokens (the class token first), D the width of the transformer, H
attention heads of width Dh.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelclip.modeling.transformer_block import join_heads, run_block, run_mlp, split_heads

# block, tokens (B, T, D), patch grid (h, w) -> tokens (B, T, D)
DensePath = Callable[[Any, Tensor, tuple[int, int]], Tensor]

# Standard deviation, in patches, of NACLIP's preference for neighbors.
_NEIGHBORHOOD_DEVIATION = 5.0


def pixelclip(block: Any, tokens: Tensor, _grid: tuple[int, int]) -> Tensor:
    """Values instead of attention, the class token's residual for all tokens, then the MLP.

    Source: PixelCLIP, section 3.3.
    """
    values = block.ls_1(_project_values(block, tokens)) + tokens[:, :1]
    return values + block.ls_2(run_mlp(block, values))


def plain(block: Any, tokens: Tensor, _grid: tuple[int, int]) -> Tensor:
    """The block as it was trained. Source: CLIP."""
    return run_block(block, tokens)


def maskclip(block: Any, tokens: Tensor, _grid: tuple[int, int]) -> Tensor:
    """Values instead of attention, neither residual nor MLP. Source: MaskCLIP, section 3.3."""
    return _project_values(block, tokens)


def sclip(block: Any, tokens: Tensor, _grid: tuple[int, int]) -> Tensor:
    """Query-query plus key-key attention, residual and MLP kept. Source: SCLIP, section 3.2."""
    queries, keys, values = split_heads(block, tokens)
    weights = _self_similarity(queries).softmax(-1) + _self_similarity(keys).softmax(-1)
    attended = tokens + block.ls_1(join_heads(block, weights @ values))
    return attended + block.ls_2(run_mlp(block, attended))


def clearclip(block: Any, tokens: Tensor, _grid: tuple[int, int]) -> Tensor:
    """Query-query attention, neither residual nor MLP. Source: ClearCLIP, section 3.3."""
    queries, _, values = split_heads(block, tokens)
    return join_heads(block, _self_similarity(queries).softmax(-1) @ values)


def naclip(block: Any, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Key-key attention that prefers neighbors, neither residual nor MLP. Source: NACLIP, 3.2."""
    _, keys, values = split_heads(block, tokens)
    similarity = _self_similarity(keys) + _neighborhood(grid).to(keys)
    return join_heads(block, similarity.softmax(-1) @ values)


DENSE_PATHS: dict[str, DensePath] = {
    path.__name__: path for path in (pixelclip, plain, maskclip, sclip, clearclip, naclip)
}


def get_dense_path(name: str) -> DensePath:
    """Look up a path by its name.

    Raises:
        ValueError: naming the value and the accepted ones.
    """
    if name not in DENSE_PATHS:
        raise ValueError(
            f"MODEL.CLIP.DENSE_PATH is {name!r}; it must be one of {', '.join(DENSE_PATHS)}."
        )
    return DENSE_PATHS[name]


def _project_values(block: Any, tokens: Tensor) -> Tensor:
    """The attention's output (B, T, D) if every token attended to itself only."""
    attention, width = block.attn, tokens.shape[-1]
    weight, bias = attention.in_proj_weight[2 * width :], attention.in_proj_bias[2 * width :]
    return attention.out_proj(F.linear(block.ln_1(tokens), weight, bias))


def _self_similarity(vectors: Tensor) -> Tensor:
    """Scaled dot products (B, H, T, T) of vectors (B, H, T, Dh) with each other."""
    return vectors @ vectors.transpose(-1, -2) / math.sqrt(vectors.shape[-1])


def _neighborhood(grid: tuple[int, int]) -> Tensor:
    """Gaussian of the distance between patches, (T, T); 0 wherever the class token is."""
    rows, columns = torch.meshgrid(*map(torch.arange, grid), indexing="ij")
    positions = torch.stack([rows.flatten(), columns.flatten()], dim=1).float()  # (h*w, 2)
    squared = (positions[:, None] - positions[None]).square().sum(-1)  # (h*w, h*w)
    gaussian = torch.exp(-squared / (2 * _NEIGHBORHOOD_DEVIATION**2))
    return F.pad(gaussian, (1, 0, 1, 0))
