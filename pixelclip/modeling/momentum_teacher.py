"""The momentum teacher: a slowly moving average of the image encoder."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MomentumTeacher(nn.Module):
    """An exponential moving average of an image encoder, without gradients.

    Its mode follows ``train()``: like the student's, its stochastic depth is active in training.
    Source: paper section 3.2.

    Args:
        image_encoder: the student, copied.
        momentum: share of the old teacher that an update keeps, in 0..1.

    Raises:
        ValueError: the momentum lies outside 0..1.
    """

    def __init__(self, image_encoder: nn.Module, momentum: float) -> None:
        super().__init__()
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"MOMENTUM is {momentum}; it must lie between 0 and 1.")
        self.image_encoder = copy.deepcopy(image_encoder).requires_grad_(False)
        self.momentum = momentum
        self._is_held = False

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Move in place toward the student: momentum * teacher + (1 - momentum) * student."""
        if self._is_held:
            return
        average = get_ema_multi_avg_fn(self.momentum)
        average(list(self.image_encoder.parameters()), list(student.parameters()), None)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within it, updates do nothing: several parts of one batch are one step."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Dense features (B, h, w, d) of normalized images (B, 3, H, W), without gradient."""
        return self.image_encoder(images)
