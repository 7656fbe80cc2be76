"""The small decoder that sharpens similarity maps during training; inference does without it.

Shapes: n maps of h x w.

A transposed convolution and the convolution behind it have no non-linearity between them: together
they are one transposed convolution of stride 2 with a 4x4 kernel, which needs no features at the
doubled resolution in between. The first convolution, which sees one channel, goes into it too:
what it makes of a map is linear in ten numbers per position, the nine neighbors and a one (for the
bias; outside of the map there are zeros). The combined kernels are computed from the parameters in
each call, so that parameters, their gradients and checkpoints are those of the plain layers.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import convert_conv2d_weight_memory_format


class MaskDecoder(nn.Module):
    """A 1-channel map to mask logits at four times its resolution, the same for every cluster.

    Source: paper section 3.3.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(1, 64, kernel_size=3, padding=1)
        self.up1 = nn.ConvTranspose2d(64, 64, kernel_size=2, stride=2)
        self.conv1 = _double_conv(64, groups=4)
        self.up2 = nn.ConvTranspose2d(64, 32, kernel_size=2, stride=2)
        self.conv2 = _double_conv(32, groups=2)
        self.proj = nn.Conv2d(32, 1, kernel_size=3, padding=1)
        # Channels last in memory suits convolutions of many small maps: about 1.5 times faster on
        # a CPU, and what tensor cores take.
        convert_conv2d_weight_memory_format(self, torch.channels_last)

    def forward(self, similarity: Tensor) -> Tensor:
        """Decode similarity maps (n, 1, h, w) to mask logits (n, 1, 4h, 4w)."""
        features = self.conv1[1:](self._first_upsampling(similarity))  # (n, 64, 2h, 2w)
        return self.proj(self.conv2[1:](self._second_upsampling(features)))

    def _first_upsampling(self, similarity: Tensor) -> Tensor:
        """``conv1[0](up1(conv0(similarity)))``, (n, 64, 2h, 2w)."""
        count, _, height, width = similarity.shape
        # (n, 1, h, w) -> (n, 9, h*w) -> (n, 9, h, w), then (n, 10, h, w)
        neighbors = F.unfold(similarity, 3, padding=1).view(count, 9, height, width)
        inputs = torch.cat([neighbors, torch.ones_like(similarity)], dim=1)
        with _full_precision(similarity):
            assert self.conv0.bias is not None and self.up1.bias is not None
            per_input = torch.cat([self.conv0.weight.flatten(1), self.conv0.bias[:, None]], dim=1)
            kernel = torch.einsum("ki,kmyx->imyx", per_input, self.up1.weight)  # (10, 64, 2, 2)
            bias = F.pad(self.up1.bias.expand(1, -1), (0, 0, 9, 0))  # (10, 64)
            kernel = _join_kernels(kernel + bias[:, :, None, None], self.conv1[0])
        return F.conv_transpose2d(inputs, kernel, stride=2, padding=1)

    def _second_upsampling(self, features: Tensor) -> Tensor:
        """``conv2[0](up2(features))``, (n, 32, 4h, 4w)."""
        with _full_precision(features):
            assert self.up2.bias is not None
            kernel = _join_kernels(self.up2.weight, self.conv2[0])
            bias = self.up2.bias[None, :, None, None].expand(1, -1, 2, 2)
            bias_kernel = _join_kernels(bias, self.conv2[0])
            one = features.new_ones((1, 1, *features.shape[-2:]), dtype=bias.dtype)
            # (1, 32, 4h, 4w); it differs at the border, where the convolution pads with zeros
            offset = F.conv_transpose2d(one, bias_kernel, stride=2, padding=1)
        upsampled = F.conv_transpose2d(features, kernel, stride=2, padding=1)
        return upsampled.add_(offset.to(upsampled.dtype))


def _join_kernels(upsampling: Tensor, convolution: Any) -> Tensor:
    """Kernel (in, out, 4, 4), of stride 2 and padding 1, of an upsampling (in, middle, 2, 2) of
    stride 2 followed by a 3x3 convolution of padding 1."""
    # A transposed convolution's kernel is its response to a single one; so is the composition's.
    return F.conv2d(upsampling, convolution.weight, padding=2)


def _full_precision(tensor: Tensor) -> torch.autocast:
    """Kernels are joined in the parameters' precision, and rounded once, by the convolution."""
    return torch.autocast(tensor.device.type, enabled=False)


def _double_conv(channels: int, groups: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [
            nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
            nn.GroupNorm(groups, channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
