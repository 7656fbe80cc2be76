"""Masks of the Segment Anything models, by transformers' automatic mask generation."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pixelclip.data.sa1b_files import FoundMask
from pixelclip.mask_generation.base_generator import BaseGenerator
from pixelclip.utils.installation import import_optional

# SAM's own choice: masks that are expected to fit worse, or that change more when the threshold of
# their logits moves by one, are left out.
_THRESHOLDS = {"pred_iou_thresh": 0.88, "stability_score_thresh": 0.95}


class SAM(BaseGenerator):
    """What SAM finds when it is asked about 32 x 32 points of the image.

    ``predicted_iou`` is the model's; ``stability_score`` is the lowest that a mask may have, 0.95,
    since transformers does not hand out each mask's own.

    Source: Kirillov et al., "Segment anything", 2023, appendix B.
    """

    name = "sam"
    default_model = "facebook/sam-vit-huge"
    # The size of SA-1B's own images. The pipeline holds 192 score maps of the image's size.
    working_side = 2250
    _pipeline: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        import_optional("transformers", "masks")

    def load(self, device: torch.device) -> None:
        """See :meth:`BaseGenerator.load`."""
        from transformers import pipeline

        model = self.model or self.default_model
        try:
            self._pipeline = self._pipeline or pipeline("mask-generation", model, device=device)
        except Exception as error:  # the hub's, the files' and transformers' own are of many kinds
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"{model!r} could not be loaded as a Segment Anything model ({reason}). Expected a "
                f"name on Hugging Face's hub, such as {self.default_model}, or a folder with "
                "config.json, preprocessor_config.json and weights."
            ) from error

    def find(self, image: NDArray[np.uint8]) -> Iterator[FoundMask]:
        """See :meth:`BaseGenerator.find`."""
        found = self._pipeline(Image.fromarray(image), **_THRESHOLDS)
        stability = _THRESHOLDS["stability_score_thresh"]
        for mask, score in zip(found["masks"], found["scores"].tolist(), strict=True):
            yield FoundMask(np.asarray(mask, dtype=np.bool_), min(score, 1.0), stability)


class SAMHQ(SAM):
    """The same with SAM-HQ (Ke et al., "Segment anything in high quality", 2023)."""

    name = "sam_hq"
    default_model = "syscv-community/sam-hq-vit-huge"


class SAM2(SAM):
    """The same with SAM 2 (Ravi et al., "SAM 2: segment anything in images and videos", 2024)."""

    name = "sam2"
    default_model = "facebook/sam2.1-hiera-large"
