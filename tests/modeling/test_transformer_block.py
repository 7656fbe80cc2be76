import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transformer import LayerNorm, QuickGELU, ResidualAttentionBlock
from torch import nn

from pixelclip.modeling.transformer_block import (
    quick_gelu,
    run_block,
    run_causal_block,
    split_heads,
)


def make_block(activation=QuickGELU, layer_scale=None):
    torch.manual_seed(0)
    block = ResidualAttentionBlock(
        32, 4, ls_init_value=layer_scale, act_layer=activation, norm_layer=LayerNorm
    )
    return block.double()


@pytest.mark.parametrize("activation", [QuickGELU, nn.GELU])
@pytest.mark.parametrize("layer_scale", [None, 0.3])
@pytest.mark.parametrize("is_causal", [False, True])
def test_equals_open_clips_own_call_in_values_and_gradients(activation, layer_scale, is_causal):
    block = make_block(activation, layer_scale)
    tokens = torch.randn(3, 7, 32, dtype=torch.float64, requires_grad=True)
    mask = torch.full((7, 7), -torch.inf, dtype=torch.float64).triu(1) if is_causal else None
    actual, expected = run_block(block, tokens, is_causal), block(tokens, attn_mask=mask)
    torch.testing.assert_close(actual, expected)
    inputs = [tokens, *block.parameters()]
    for one, other in zip(
        torch.autograd.grad(actual.sin().sum(), inputs),
        torch.autograd.grad(expected.sin().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@settings(max_examples=10)
@given(st.integers(1, 6), st.integers(1, 6))
def test_tokens_after_a_shared_context_equal_the_whole_sequence(before, after):
    block = make_block()
    context = torch.randn(1, before, 32, dtype=torch.float64)
    tokens = torch.randn(3, after, 32, dtype=torch.float64)
    whole = torch.cat([context.expand(3, -1, -1), tokens], dim=1)
    expected = run_block(block, whole, is_causal=True)[:, before:]
    _, keys, values = split_heads(block, context)
    torch.testing.assert_close(run_causal_block(block, tokens, (keys, values)), expected)


def test_quick_gelu_overwrites_its_input_only_after_its_use():
    source = torch.linspace(-6, 6, 50, dtype=torch.float64, requires_grad=True)
    actual, expected = quick_gelu(source * 1), QuickGELU()(source)
    torch.testing.assert_close(actual, expected)
    gradients = [torch.autograd.grad(x.square().sum(), source)[0] for x in (actual, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("batch_first", [True, False])
def test_other_blocks_run_themselves(batch_first):
    class SwappingBlock(ResidualAttentionBlock):
        """Swaps the first two tokens of what it gets in its own layout."""

        def forward(self, tokens):
            return tokens.flip(1 if self.attn.batch_first else 0)

    block = SwappingBlock(32, 4, batch_first=batch_first)
    tokens = torch.randn(3, 2, 32)
    assert torch.equal(run_block(block, tokens), tokens.flip(1))
