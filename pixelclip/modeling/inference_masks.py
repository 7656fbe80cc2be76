"""Where the masks come from inside which similarity is averaged at inference."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode

from pixelclip.config_check import check_choice
from pixelclip.data.mask_ownership import MaskOwnership
from pixelclip.data.nearest_sampling import shrink_mask
from pixelclip.mask_generation.generators import DEFAULT_MODELS, GeneratorChoice
from pixelclip.mask_generation.mask_generator import MaskGenerator
from pixelclip.modeling.bilinear_patch import Size
from pixelclip.modeling.mask_smoothing import SmoothingMasks

NO_MASKS = "none"
GIVEN_MASKS = "given"

InferenceMasks = Callable[[Mapping[str, Any], torch.device], SmoothingMasks]


def build_inference_masks(cfg: CfgNode) -> InferenceMasks | None:
    """What ``MODEL.PIXELCLIP.TEST_MASKS`` says; None for no masks.

    Raises:
        ValueError, ModuleNotFoundError: see :class:`GeneratorChoice`.
    """
    node = cfg.MODEL.PIXELCLIP
    choices = (NO_MASKS, GIVEN_MASKS, *DEFAULT_MODELS)
    check_choice("MODEL.PIXELCLIP.TEST_MASKS", node.TEST_MASKS, choices)
    if node.TEST_MASKS == NO_MASKS:
        return None
    if node.TEST_MASKS == GIVEN_MASKS:
        return take_given_masks
    choice = GeneratorChoice(node.TEST_MASKS, node.TEST_MASK_MODEL, node.TEST_MASK_WEIGHTS)
    return GeneratedMasks(choice, tuple(node.MASK_RESOLUTION))


def take_given_masks(inputs: Mapping[str, Any], device: torch.device) -> SmoothingMasks:
    """The masks that stand beside an image, as ``MaskRegionsMapper`` puts them there.

    Args:
        inputs: with ``masks`` and ``owner``, see :class:`SmoothingMasks`.
        device: to which they go.

    Raises:
        ValueError: one of them is missing.
    """
    missing = [key for key in ("masks", "owner") if key not in inputs]
    if missing:
        raise ValueError(
            f"MODEL.PIXELCLIP.TEST_MASKS is {GIVEN_MASKS!r}, and an image came without "
            f"{' and '.join(missing)}; give them, or choose a mask generator."
        )
    return SmoothingMasks(inputs["masks"].to(device), inputs["owner"].to(device))


class GeneratedMasks:
    """Generates the masks of each image when it is its turn.

    It is no module: what holds it does not own the parameters of the generator's network.

    Args:
        choice: the generator, built on the first image.
        mask_resolution: (Mh, Mw), to which masks are resized for pooling.
    """

    def __init__(self, choice: GeneratorChoice, mask_resolution: Size) -> None:
        self.choice = choice
        self.mask_resolution = mask_resolution
        self._generator: MaskGenerator | None = None

    def __call__(self, inputs: Mapping[str, Any], device: torch.device) -> SmoothingMasks:
        """Masks of ``inputs["image"]`` (3, H, W) RGB in 0..255, on a device, owners at (H, W).

        Raises:
            ValueError, RuntimeError: the generator's model cannot be loaded.
        """
        if self._generator is None:
            self._generator = self.choice.build(device)
        image = inputs["image"].permute(1, 2, 0).cpu().numpy()  # (3, H, W) -> (H, W, 3)
        pixels = np.ascontiguousarray(image.round().clip(0, 255), np.uint8)
        ownership = MaskOwnership((pixels.shape[0], pixels.shape[1]))
        masks = []
        for found in self._generator.generate(pixels):
            ownership.add(found.mask)
            masks.append(shrink_mask(found.mask, self.mask_resolution))
        stacked = np.array(masks, np.bool_).reshape(-1, *self.mask_resolution)  # also for N = 0
        owner = torch.from_numpy(ownership.owner)
        return SmoothingMasks(torch.from_numpy(stacked).to(device), owner.to(device))
