"""Masks of DINO's and DINOv2's patch features, clustered photograph by photograph."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from pixelclip.data.sa1b_writing import FoundMask
from pixelclip.mask_generation.mask_generator import MaskGenerator
from pixelclip.mask_generation.working_size import enlarge_mask, shrink_image
from pixelclip.modeling.dino_features import PRETRAINED, DinoFeatures
from pixelclip.modeling.dino_masks import cluster_dino_features

# The side of the crops whose features are clustered while training.
_WORKING_SIDE = 640


class DinoGenerator(MaskGenerator):
    """The clusters that k-means finds among a photograph's patch features, connected or not.

    They part the photograph; nothing scores them.

    Args:
        model, weights: name and weights, see :class:`DinoFeatures`.
        device: where it computes.
        num_clusters: k.

    Raises:
        ValueError, RuntimeError: see :class:`DinoFeatures`.

    Source: paper section 4.1.
    """

    def __init__(
        self,
        model: str,
        device: torch.device,
        weights: str = PRETRAINED,
        num_clusters: int = 16,
    ) -> None:
        self._dino = DinoFeatures(model, weights).to(device)
        self._num_clusters = num_clusters

    def generate(self, image: NDArray[np.uint8]) -> Iterator[FoundMask]:
        """See :meth:`MaskGenerator.generate`."""
        small = shrink_image(image, _WORKING_SIDE)
        pixels = torch.from_numpy(small.copy()).permute(2, 0, 1)  # (h, w, 3) -> (3, h, w)
        size = (small.shape[0], small.shape[1])
        clusters = cluster_dino_features(self._dino, pixels, self._num_clusters, 0, size)
        for mask in clusters.cpu().numpy():
            if mask.any():
                yield FoundMask(enlarge_mask(mask, image.shape[:2]))
