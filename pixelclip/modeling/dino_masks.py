"""Masks of an image without annotations: clusters of its DINO features.

Shapes: k masks, patch grid h x w, d channels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelclip.modeling.dino_features import DinoFeatures
from pixelclip.modeling.kmeans import kmeans

Masks = list[Tensor]


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

    def __call__(self, batched_inputs: Sequence[Mapping[str, Any]], device: torch.device) -> Masks:
        """Masks (num_masks, height, width) bool of each image, computed on a device.

        Args:
            batched_inputs: each with ``image`` (3, H, W) RGB in 0..255, and optionally
                ``mask_seed``, the seed of k-means (0).
            device: on which DINO then stays.
        """
        images = [inputs["image"] for inputs in batched_inputs]
        seeds = [inputs.get("mask_seed", 0) for inputs in batched_inputs]
        dino = self.load().to(device)
        return cluster_dino_features_of_images(dino, images, self.num_masks, seeds, self.size)


def cluster_dino_features(
    dino: DinoFeatures, image: Tensor, num_masks: int, seed: int, size: tuple[int, int]
) -> Tensor:
    """Divide one image (3, H, W) into clusters; see :func:`cluster_dino_features_of_images`."""
    return cluster_dino_features_of_images(dino, [image], num_masks, [seed], size)[0]


@torch.no_grad()
def cluster_dino_features_of_images(
    dino: DinoFeatures,
    images: Sequence[Tensor],
    num_masks: int,
    seeds: Sequence[int],
    size: tuple[int, int],
) -> Masks:
    """Divide each image into the clusters that k-means finds among its DINO features.

    Images go through DINO one at a time, so that no rounding depends on what else is in a batch.

    Args:
        dino: on the device to compute on.
        images: (3, H, W) RGB in 0..255, of any sizes; resized to the nearest multiple of DINO's
            patches.
        num_masks: k.
        seeds: of k-means; equal images with equal seeds get equal masks.
        size: (height, width) of the masks, upsampled by nearest neighbour.

    Returns:
        For each image (k, height, width) bool; each pixel is in one of them, some may be empty.

    Source: paper section 4.1.
    """
    features = [_extract(dino, image) for image in images]
    grids = [(of_image.shape[0], of_image.shape[1]) for of_image in features]
    masks: dict[int, Tensor] = {}
    for grid in set(grids):
        members = [index for index, of_image in enumerate(grids) if of_image == grid]
        stacked = torch.stack([features[index].flatten(0, 1) for index in members])  # (n, h*w, d)
        found = kmeans(stacked, num_masks, [seeds[index] for index in members])
        labels = found.assignment.reshape(-1, 1, *grid).float()  # (n, h*w) -> (n, 1, h, w)
        upsampled = F.interpolate(labels, size, mode="nearest")  # (n, 1, height, width)
        numbers = torch.arange(num_masks, device=upsampled.device)[:, None, None]
        masks.update(zip(members, upsampled == numbers, strict=True))  # (n, k, height, width)
    return [masks[index] for index in range(len(images))]


def _extract(dino: DinoFeatures, image: Tensor) -> Tensor:
    """Features (h, w, d) of an image (3, H, W) of any size."""
    pixels = image.to(dino.pixel_mean.device).float()[None]
    height, width = (
        dino.patch_size * max(1, round(side / dino.patch_size)) for side in image.shape[1:]
    )
    resized = F.interpolate(pixels, (height, width), mode="bilinear", align_corners=False)
    return dino(resized)[0]
