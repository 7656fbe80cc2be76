"""The parts of a model that are exported: tensors in, tensors out, preprocessing included.

Shapes: B pictures of H x W pixels, any sizes; feature grid h x w, d the width of CLIP's joint
space, C classes, test feature size (Th, Tw).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelclip.meta_arch import PixelCLIP, cosine_similarity

# (B, 3, H, W) and (C, d): which dimensions of the inputs may have any length, and their names.
DYNAMIC_DIMENSIONS: dict[str, dict[int, str]] = {
    "images": {0: "batch", 2: "height", 3: "width"},
    "text_features": {0: "classes"},
}


class PictureEncoder(nn.Module):
    """Pictures of any size to dense features, not L2-normalised.

    Args:
        model: whose image encoder, normalisation and resolution are taken.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, model: PixelCLIP) -> None:
        super().__init__()
        self.image_encoder = model.image_encoder
        self.register_buffer("pixel_mean", model.pixel_mean)
        self.register_buffer("pixel_std", model.pixel_std)
        self.resolution = model.clip_resolution

    def forward(self, images: Tensor) -> Tensor:
        """Encode pictures (B, 3, H, W), RGB in 0..255, float32, to (B, h, w, d)."""
        normalised = (images - self.pixel_mean) / self.pixel_std
        resized = F.interpolate(normalised, self.resolution, mode="bilinear", align_corners=False)
        return self.image_encoder(resized)


class DenseFeatures(nn.Module):
    """Pictures to unit vectors of CLIP's joint space.

    Args:
        model: see :class:`PictureEncoder`.
    """

    def __init__(self, model: PixelCLIP) -> None:
        super().__init__()
        self.encoder = PictureEncoder(model)

    def forward(self, images: Tensor) -> Tensor:
        """Unit vectors (B, h, w, d) of pictures (B, 3, H, W)."""
        return F.normalize(self.encoder(images), dim=-1)


class Scores(nn.Module):
    """Pictures and the text features of any words to cosines.

    Args:
        model: see :class:`PictureEncoder`; its test feature size is taken too.
    """

    def __init__(self, model: PixelCLIP) -> None:
        super().__init__()
        self.encoder = PictureEncoder(model)
        self.test_feature_size = model.test_feature_size

    def forward(self, images: Tensor, text_features: Tensor) -> Tensor:
        """Cosines (B, C, Th, Tw) of pictures (B, 3, H, W) with text features (C, d)."""
        features = F.interpolate(
            self.encoder(images).permute(0, 3, 1, 2),  # (B, d, h, w)
            self.test_feature_size,
            mode="bilinear",
            align_corners=False,
        )
        scores = cosine_similarity(features.permute(0, 2, 3, 1), text_features)
        return scores.permute(0, 3, 1, 2)  # (B, C, Th, Tw)


class ClassScores(nn.Module):
    """Pictures to cosines with the classes of the model's vocabulary.

    Args:
        model: see :class:`Scores`; the text features of its vocabulary are taken too.
    """

    text_features: Tensor

    def __init__(self, model: PixelCLIP) -> None:
        super().__init__()
        self.scores = Scores(model)
        self.register_buffer("text_features", model.text_classifier.clone())

    def forward(self, images: Tensor) -> Tensor:
        """Cosines (B, C, Th, Tw) of pictures (B, 3, H, W) with the classes."""
        return self.scores(images, self.text_features)


class Graph(NamedTuple):
    """What is exported, with inputs to trace it with: two of everything that may be of any length.

    Attributes:
        module: of tensors only, in eval mode.
        inputs: by name, in the order of ``module.forward``.
        output_name: "features" or "scores".
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    output_name: str

    @property
    def dynamic_dimensions(self) -> dict[str, dict[int, str]]:
        """Names of the dimensions of each input that may have any length."""
        return {name: DYNAMIC_DIMENSIONS[name] for name in self.inputs}


def make_graph(model: PixelCLIP, kind: str, has_vocabulary: bool) -> Graph:
    """Prepare a model, which is on the CPU, for export.

    Args:
        model: with a vocabulary of its own where ``has_vocabulary``.
        kind: "encoder" or "classifier".
        has_vocabulary: the classifier's classes are fixed, not an input.
    """
    height, width = model.clip_resolution
    inputs = {"images": torch.zeros(2, 3, height + 2, width + 3)}
    if kind == "encoder":
        return Graph(DenseFeatures(model).eval(), inputs, "features")
    if has_vocabulary:
        return Graph(ClassScores(model).eval(), inputs, "scores")
    inputs["text_features"] = torch.ones(2, model.image_encoder.embedding_dim)
    return Graph(Scores(model).eval(), inputs, "scores")
