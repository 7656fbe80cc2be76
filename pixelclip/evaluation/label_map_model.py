"""A model that only gives label maps, for evaluators that need no scores."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pixelclip.meta_arch import PixelCLIP


class LabelMapModel(nn.Module):
    """PixelCLIP for Detectron2's ``inference_on_dataset`` with a :class:`LabelMapEvaluator`.

    Each output is ``{"labels": (height, width)}``, see :meth:`PixelCLIP.segment_labels`: scores of
    all classes are neither made nor copied from the GPU.
    """

    def __init__(self, model: PixelCLIP) -> None:
        super().__init__()
        self.model = model
        self.train(model.training)

    @torch.no_grad()
    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Tensor]]:
        """Label maps of a batch of images."""
        return [{"labels": labels} for labels in self.model.segment_labels(batched_inputs)]
