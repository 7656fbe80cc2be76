import copy

import torch
from torch import nn

from pixelclip.modeling.mask_decoder import MaskDecoder


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


def test_memory_layout_changes_neither_values_nor_gradients():
    decoder = MaskDecoder().double()  # in float32, rounding can turn a ReLU's gradient on or off
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
