"""The small decoder that sharpens similarity maps during training; inference does without it."""

import torch
from torch import Tensor, nn
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
        features = self.conv1(self.up1(self.conv0(similarity)))  # (n, 64, 2h, 2w)
        return self.proj(self.conv2(self.up2(features)))


def _double_conv(channels: int, groups: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [
            nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
            nn.GroupNorm(groups, channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
