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
