"""Masks of MobileSAM, which are found without a GPU, too."""

import os
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from pixelclip.checkpoint.weights_download import fetch_weights
from pixelclip.data.sa1b_files import FoundMask
from pixelclip.mask_generation.automatic_masks import find_masks
from pixelclip.mask_generation.base_generator import BaseGenerator
from pixelclip.utils.installation import import_optional


class MobileSAM(BaseGenerator):
    """What MobileSAM finds at the points of a grid that no mask of another point covers.

    Source: Zhang et al., "Faster segment anything", 2023.
    """

    name = "mobile_sam"
    default_model = "hf://dhkim2810/MobileSAM/mobile_sam.pt"
    takes_weights = True
    working_side = 1024
    skip_covered: ClassVar[bool] = True
    _model: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        import_optional("transformers", "masks")
        if self.weights and not os.path.isfile(self.weights):
            raise ValueError(f"The MobileSAM weights {self.weights!r} are not a file.")

    def load(self, device: torch.device) -> None:
        """See :meth:`BaseGenerator.load`."""
        if self._model is None:
            from pixelclip.mask_generation.mobile_sam import build_mobile_sam, load_weights

            model = build_mobile_sam()
            load_weights(model, self.weights or fetch_weights(self.model or self.default_model))
            self._model = model.to(device)

    def find(self, image: NDArray[np.uint8]) -> Iterator[FoundMask]:
        """See :meth:`BaseGenerator.find`."""
        return find_masks(self._model, image, self.skip_covered)


class MobileSAMGrid(MobileSAM):
    """The same at all 32 x 32 points, as published; several times slower."""

    name = "mobile_sam_grid"
    skip_covered = False
