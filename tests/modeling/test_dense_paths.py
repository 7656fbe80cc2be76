import math

import pytest
import torch

from pixelclip.modeling.clip_loader import load_clip
from pixelclip.modeling.dense_paths import DENSE_PATHS, get_dense_path
from pixelclip.modeling.image_encoder import DenseImageEncoder

GRID = (4, 3)


@pytest.fixture
def visual(tiny_vit_json):
    torch.manual_seed(5)
    visual = load_clip(tiny_vit_json, "").visual
    with torch.no_grad():  # biases start at zero, where a lost one would not be seen
        for parameter in visual.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return visual


def attention_weights(path, query, key):
    """Weights (T, T) of one head; query and key are (T, Dh)."""
    scale = math.sqrt(query.shape[1])
    query_query = query @ query.T / scale
    key_key = key @ key.T / scale
    if path == "sclip":
        return query_query.softmax(1) + key_key.softmax(1)
    if path == "clearclip":
        return query_query.softmax(1)
    if path == "naclip":
        for p in range(GRID[0] * GRID[1]):
            for q in range(GRID[0] * GRID[1]):
                row, column = p // GRID[1] - q // GRID[1], p % GRID[1] - q % GRID[1]
                key_key[1 + p, 1 + q] += math.exp(-(row**2 + column**2) / (2 * 5**2))
        return key_key.softmax(1)
    if path == "plain":
        return (query @ key.T / scale).softmax(1)
    return torch.eye(len(query))


def reference(path, block, tokens):
    """One image's tokens (T, D) through the path, head by head."""
    attention, normalized = block.attn, block.ln_1(tokens)
    projected = normalized @ attention.in_proj_weight.T + attention.in_proj_bias
    width, head_width = tokens.shape[1], tokens.shape[1] // attention.num_heads
    heads = []
    for head in range(attention.num_heads):
        here = slice(head * head_width, (head + 1) * head_width)
        query, key, value = (projected[:, i * width :][:, here] for i in range(3))
        heads.append(attention_weights(path, query, key) @ value)
    attended = attention.out_proj(torch.cat(heads, dim=1))
    if path in ("maskclip", "clearclip", "naclip"):
        return attended
    attended = attended + (tokens[:1] if path == "pixelclip" else tokens)
    return attended + block.mlp(block.ln_2(attended))


@pytest.mark.parametrize("path", DENSE_PATHS)
def test_equals_the_loop_over_heads_with_gradients(visual, path):
    block = visual.transformer.resblocks[-1]
    tokens = torch.randn(2, 1 + GRID[0] * GRID[1], 32, requires_grad=True)
    actual = get_dense_path(path)(block, tokens, GRID)
    expected = torch.stack([reference(path, block, image) for image in tokens])
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)
    inputs = [tokens, block.attn.in_proj_weight, block.attn.out_proj.bias]
    for one, other in zip(
        torch.autograd.grad(actual.square().sum(), inputs),
        torch.autograd.grad(expected.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("path", DENSE_PATHS)
def test_a_constant_image_gives_constant_features_inside(visual, path):
    """Inside: where NACLIP's neighborhood is not cut off by the border."""
    with torch.no_grad():
        visual.positional_embedding.zero_()
        features = DenseImageEncoder(visual, path)(torch.randn(1, 3, 1, 1).expand(1, 3, 640, 640))
    inside = features[:, 15:25, 15:25]
    torch.testing.assert_close(inside, inside[:, :1, :1].expand_as(inside), atol=1e-5, rtol=1e-4)


def test_paths_differ_from_each_other(visual):
    images = torch.randn(1, 3, 64, 64)
    features = [DenseImageEncoder(visual, path)(images) for path in DENSE_PATHS]
    for i, one in enumerate(features):
        assert all(not torch.allclose(one, other, atol=1e-3) for other in features[:i])


def test_unknown_path_is_refused(visual):
    with pytest.raises(ValueError, match="'maskclp'.*maskclip"):
        DenseImageEncoder(visual, "maskclp")


def test_convnext_has_its_own_path_only(tiny_convnext_json):
    visual = load_clip(tiny_convnext_json, "").visual
    with pytest.raises(ValueError, match="ConvNeXt"):
        DenseImageEncoder(visual, "sclip")
