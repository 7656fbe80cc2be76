"""Masks of an image without annotations: clusters of its DINO features.

Shapes: k masks, patch grid h x w, d channels.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelclip.modeling.dino_features import DinoFeatures
from pixelclip.modeling.kmeans import kmeans


class DinoMasks:
    """Makes the masks of training images instead of reading them.

    It is no module: what holds it does not own DINO's parameters, in checkpoints or elsewhere.

    Args:
        name, weights: see :class:`DinoFeatures`.
        num_masks: clusters of each image.
        size: (height, width) of the masks.
    """

    def __init__(self, name: str, weights: str, num_masks: int, size: tuple[int, int]) -> None:
        self.name = name
        self.weights = weights
        self.num_masks = num_masks
        self.size = size
        self._dino: DinoFeatures | None = None

    def load(self) -> DinoFeatures:
        """Build DINO, on the first call: evaluation does without it.

        Raises:
            ValueError, RuntimeError: see :class:`DinoFeatures`.
        """
        if self._dino is None:
            self._dino = DinoFeatures(self.name, self.weights)
        return self._dino

    def __call__(self, inputs: Mapping[str, Any], device: torch.device) -> Tensor:
        """Masks (num_masks, height, width) bool of one image, computed on a device.

        Args:
            inputs: ``image`` (3, H, W) RGB in 0..255; optionally ``visible`` (height, width) bool,
                outside of which no mask reaches, and ``mask_seed``, the seed of k-means (0).
            device: on which DINO then stays.
        """
        dino = self.load().to(device)
        seed = inputs.get("mask_seed", 0)
        masks = cluster_dino_features(dino, inputs["image"], self.num_masks, seed, self.size)
        return masks & inputs["visible"].to(device) if "visible" in inputs else masks


@torch.no_grad()
def cluster_dino_features(
    dino: DinoFeatures, image: Tensor, num_masks: int, seed: int, size: tuple[int, int]
) -> Tensor:
    """Divide an image into the clusters that k-means finds among its DINO features.

    Images go through DINO one at a time, so that no rounding depends on what is in a batch.

    Args:
        dino: on the device to compute on.
        image: (3, H, W) RGB in 0..255, any size; resized to the nearest multiple of DINO's patches.
        num_masks: k.
        seed: of k-means; equal images with equal seeds get equal masks.
        size: (height, width) of the masks, upsampled by nearest neighbour.

    Returns:
        (k, height, width) bool; each pixel is in one of them, and some may be empty.

    Source: paper section 4.1.
    """
    pixels = image.to(dino.pixel_mean.device).float()[None]
    grid = [max(1, round(side / dino.patch_size)) for side in image.shape[1:]]
    resized = F.interpolate(
        pixels, [side * dino.patch_size for side in grid], mode="bilinear", align_corners=False
    )
    features = dino(resized).flatten(1, 2)  # (1, h*w, d)
    assignment = kmeans(features, num_masks, [seed]).assignment
    labels = assignment.reshape(1, 1, *grid).float()  # (1, h*w) -> (1, 1, h, w)
    upsampled = F.interpolate(labels, size, mode="nearest")[0]  # (1, height, width)
    return upsampled == torch.arange(num_masks, device=upsampled.device)[:, None, None]
