"""The parts of a model that are exported: tensors in, tensors out, preprocessing included.

Shapes: B images of H x W pixels, any sizes; feature grid h x w, d the width of CLIP's joint
space, C classes, test feature size (Th, Tw).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelclip.meta_arch import PixelCLIP
from pixelclip.modeling.text_classifier import cosine_similarity

# Which dimensions of the inputs (B, 3, H, W) and (C, d) may have any length, and their names.
_DYNAMIC_DIMENSIONS = {
    "images": {0: "batch", 2: "height", 3: "width"},
    "text_features": {0: "classes"},
}


class DenseEncoder(nn.Module):
    """Images of any size to dense features.

    Args:
        model: whose image encoder, normalization and resolution are used.
        normalize: make the features unit vectors.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, model: PixelCLIP, normalize: bool = True) -> None:
        super().__init__()
        self.image_encoder = model.image_encoder
        self.register_buffer("pixel_mean", model.pixel_mean)
        self.register_buffer("pixel_std", model.pixel_std)
        self.resolution = model.clip_resolution
        self.normalize = normalize

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, h, w, d) of images (B, 3, H, W) float32, RGB in 0..255."""
        pixels = (images - self.pixel_mean) / self.pixel_std
        resized = F.interpolate(pixels, self.resolution, mode="bilinear", align_corners=False)
        features = self.image_encoder(resized)
        return F.normalize(features, dim=-1) if self.normalize else features


class Classifier(nn.Module):
    """Images to cosines with text features.

    Args:
        model: see :class:`DenseEncoder`; its test feature size is used too.
        text_features: (C, d), fixed in the file; None makes them an input.
    """

    text_features: Tensor

    def __init__(self, model: PixelCLIP, text_features: Tensor | None = None) -> None:
        super().__init__()
        self.encoder = DenseEncoder(model, normalize=False)
        self.test_feature_size = model.inference_views.feature_size
        self.register_buffer("text_features", text_features)

    def forward(self, images: Tensor, text_features: Tensor | None = None) -> Tensor:
        """Cosines (B, C, Th, Tw) of images (B, 3, H, W) with text features (C, d)."""
        features = F.interpolate(
            self.encoder(images).permute(0, 3, 1, 2),  # (B, d, h, w)
            self.test_feature_size,
            mode="bilinear",
            align_corners=False,
        )
        classes = self.text_features if text_features is None else text_features
        scores = cosine_similarity(features.permute(0, 2, 3, 1), classes)
        return scores.permute(0, 3, 1, 2)  # (B, C, Th, Tw)


class Graph(NamedTuple):
    """What is exported.

    Attributes:
        module: of tensors only, in eval mode.
        inputs: to trace it with, by name, in the order of ``module.forward``. Tracing takes
            lengths of 0 and 1 as fixed, so dynamic dimensions have others.
        output_name: "features" or "scores".
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    output_name: str

    @property
    def dynamic_dimensions(self) -> dict[str, dict[int, str]]:
        """Names of the dimensions of each input that may have any length."""
        return {name: _DYNAMIC_DIMENSIONS[name] for name in self.inputs}


def make_graph(model: PixelCLIP, kind: str, has_vocabulary: bool) -> Graph:
    """Prepare a model, which is on the CPU, for export.

    Args:
        model: for a classifier, with a vocabulary of at least two classes, or one that is fixed.
        kind: "encoder" or "classifier".
        has_vocabulary: the classifier's classes are fixed, not an input.
    """
    height, width = model.clip_resolution
    inputs = {"images": torch.zeros(2, 3, height + 2, width + 3)}
    if kind == "encoder":
        return Graph(DenseEncoder(model).eval(), inputs, "features")
    text_features = model.text_classifier.features.clone()
    if has_vocabulary:
        return Graph(Classifier(model, text_features).eval(), inputs, "scores")
    return Graph(Classifier(model).eval(), {**inputs, "text_features": text_features}, "scores")
