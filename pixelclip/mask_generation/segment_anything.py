"""Masks of the Segment Anything models, by transformers' automatic mask generation."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pixelclip.data.sa1b_writing import FoundMask
from pixelclip.mask_generation.mask_generator import MaskGenerator
from pixelclip.mask_generation.working_size import enlarge_mask, shrink_image

# The size of SA-1B's own photographs. The pipeline holds 192 maps of scores at the picture's size.
_WORKING_SIDE = 2250
# SAM's own choice: masks that are expected to fit worse, or that change more when the threshold of
# their logits moves by one, are left out.
_PREDICTED_IOU = 0.88
_STABILITY_SCORE = 0.95


class SegmentAnythingGenerator(MaskGenerator):
    """What SAM, SAM-HQ or SAM 2 finds when it is asked about 32 x 32 points of the photograph.

    ``predicted_iou`` is the model's; ``stability_score`` is the lowest that a mask may have, 0.95,
    since transformers does not hand out each mask's own.

    Args:
        model: a model of Hugging Face's hub, or a folder that one was saved to.
        device: where it computes.

    Raises:
        ValueError: it cannot be loaded, or is a model of another kind.

    Source: Kirillov et al., "Segment anything", 2023, appendix B.
    """

    def __init__(self, model: str, device: torch.device) -> None:
        self._pipeline = _load_pipeline(model, device)

    def generate(self, image: NDArray[np.uint8]) -> Iterator[FoundMask]:
        """See :meth:`MaskGenerator.generate`."""
        picture = Image.fromarray(shrink_image(image, _WORKING_SIDE))
        found = self._pipeline(
            picture, pred_iou_thresh=_PREDICTED_IOU, stability_score_thresh=_STABILITY_SCORE
        )
        for mask, score in zip(found["masks"], found["scores"].tolist(), strict=True):
            whole = enlarge_mask(np.asarray(mask, dtype=np.bool_), image.shape[:2])
            if whole.any():
                yield FoundMask(whole, min(score, 1.0), _STABILITY_SCORE)


def _load_pipeline(model: str, device: torch.device) -> Any:
    # An optional package; GeneratorChoice says so where it is missing.
    from transformers import pipeline

    try:
        return pipeline("mask-generation", model=model, device=device)
    except Exception as error:  # the hub's, the files' and transformers' own are of many kinds
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{model!r} could not be loaded as a Segment Anything model ({type(error).__name__}: "
            f"{reason}). Expected a name on Hugging Face's hub, such as "
            "facebook/sam-vit-huge, or a folder with its config.json, preprocessor_config.json "
            "and weights."
        ) from error
