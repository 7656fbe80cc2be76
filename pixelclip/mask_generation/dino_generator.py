"""Masks of DINO's and DINOv2's patch features, clustered image by image."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from pixelclip.data.sa1b_files import FoundMask
from pixelclip.mask_generation.base_generator import BaseGenerator
from pixelclip.modeling.dino_masks import PRETRAINED, DinoFeatures, check_dino, cluster_images


class DINO(BaseGenerator):
    """The clusters that k-means finds among an image's patch features, connected or not.

    Each pixel is in exactly one of them; nothing scores them.

    Source: paper section 4.1.
    """

    name = "dino"
    default_model = "vit_small_patch16_224.dino"
    takes_weights = True
    working_side = 640  # that of the crops whose features are clustered while training
    _dino: DinoFeatures | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._source = self.model or self.default_model, self.weights or PRETRAINED
        check_dino(*self._source)

    def load(self, device: torch.device) -> None:
        """See :meth:`BaseGenerator.load`."""
        self._dino = self._dino or DinoFeatures(*self._source).to(device)

    def find(self, image: NDArray[np.uint8]) -> Iterator[FoundMask]:
        """See :meth:`BaseGenerator.find`."""
        assert self._dino is not None, "load() comes first"
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)  # (h, w, 3) -> (3, h, w)
        size = (image.shape[0], image.shape[1])
        clusters = cluster_images(self._dino, [pixels], self.num_clusters, [0], size)[0]
        yield from map(FoundMask, clusters.cpu().numpy())


class DINOv2(DINO):
    """The same with DINOv2's features."""

    name = "dinov2"
    default_model = "vit_small_patch14_dinov2.lvd142m"
