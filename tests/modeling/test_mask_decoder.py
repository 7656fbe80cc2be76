import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pixelclip.modeling.mask_decoder import MaskDecoder


def decode_layer_by_layer(decoder, similarity):
    """The published forward pass."""
    features = decoder.conv1(decoder.up1(decoder.conv0(similarity)))
    return decoder.proj(decoder.conv2(decoder.up2(features)))


def test_layers_are_the_published_ones():
    decoder = MaskDecoder()
    kinds = [type(m) for m in decoder.modules() if not list(m.children())]
    block = [nn.Conv2d, nn.GroupNorm, nn.ReLU] * 2
    up = [nn.ConvTranspose2d]
    assert kinds == [nn.Conv2d, *up, *block, *up, *block, nn.Conv2d]
    assert sum(p.numel() for p in decoder.parameters()) == 118_145


def test_each_map_is_decoded_by_itself_at_four_times_its_size():
    decoder = MaskDecoder()
    maps = torch.randn(3, 1, 5, 7)
    decoded = decoder(maps)
    assert decoded.shape == (3, 1, 20, 28)
    alone = torch.cat([decoder(m[None]) for m in maps])
    torch.testing.assert_close(decoded, alone, atol=1e-5, rtol=1e-4)


@settings(max_examples=10)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(0, 100))
def test_equals_the_plain_layers_in_values_and_gradients(count, height, width, seed):
    # In double precision: in float32, rounding can turn a ReLU's gradient on or off.
    generator = torch.Generator().manual_seed(seed)
    decoder = MaskDecoder().double()
    maps = torch.randn(count, 1, height, width, generator=generator, dtype=torch.float64)
    maps.requires_grad_()
    weights = torch.randn(count, 1, 4 * height, 4 * width, generator=generator).double()
    inputs = [maps, *decoder.parameters()]
    joined, plain = decoder(maps), decode_layer_by_layer(decoder, maps)
    torch.testing.assert_close(joined, plain)
    for one, other in zip(
        torch.autograd.grad((joined * weights).sum(), inputs),
        torch.autograd.grad((plain * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-6)


def test_joined_layers_are_exact_in_float32_too():
    torch.manual_seed(0)
    decoder = MaskDecoder()
    maps = torch.randn(2, 1, 5, 4)
    expected = decoder.conv1[0](decoder.up1(decoder.conv0(maps)))
    torch.testing.assert_close(decoder._first_upsampling(maps), expected, atol=1e-5, rtol=1e-5)
    features = torch.randn(2, 64, 5, 4)
    expected = decoder.conv2[0](decoder.up2(features))
    torch.testing.assert_close(
        decoder._second_upsampling(features), expected, atol=1e-5, rtol=1e-5
    )


def test_autocast_rounds_and_no_more():
    torch.manual_seed(0)
    decoder, maps = MaskDecoder(), torch.randn(4, 1, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        decoded = decoder(maps)
    assert decoded.dtype == torch.bfloat16
    expected = decoder(maps)
    error = (decoded.float() - expected).abs().mean() / expected.abs().mean()
    assert error < 0.02


def test_memory_layout_changes_neither_values_nor_gradients():
    decoder = MaskDecoder().double()
    contiguous = copy.deepcopy(decoder).to(memory_format=torch.contiguous_format)
    maps = torch.randn(3, 1, 6, 6, dtype=torch.float64)
    for one, other in zip(
        torch.autograd.grad(decoder(maps).square().sum(), list(decoder.parameters())),
        torch.autograd.grad(contiguous(maps).square().sum(), list(contiguous.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(decoder(maps), contiguous(maps))
    assert decoder.conv2[0].weight.is_contiguous(memory_format=torch.channels_last)
