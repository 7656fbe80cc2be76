"""Where the masks come from inside which similarity is averaged at inference."""

import pkgutil
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from detectron2.config import CfgNode
from torch import Tensor

from pixelclip.config import check_choice
from pixelclip.data.masks import MaskIndexMap, MaskOverlaps, shrink_mask
from pixelclip.data.sa1b_files import FoundMask
from pixelclip.utils.transfer import to_device

NO_MASKS = "none"
GIVEN_MASKS = "given"
OVERLAPS = ("smallest", "mean")

# The class of each mask generator by name, as "module:class"; applications add theirs, see
# pixelclip/applications.py. Each is imported when it is chosen.
MASK_GENERATORS: dict[str, str] = {}


class CropScores(NamedTuple):
    """Scores (M, C) of crops, the N masks that they show, (M,) int64, and their weight."""

    scores: Tensor
    mask_index: Tensor
    weight: float

    def mix_into(self, pooled: Tensor) -> Tensor:
        """Weighted mean (N, C) of the masks' pooled scores (N, C), which weigh 1, and the crops'.

        A mask without a crop keeps its pooled scores.
        """
        mixed = (pooled[self.mask_index] + self.weight * self.scores) / (1 + self.weight)
        return pooled.index_copy(0, self.mask_index, mixed)


class InferenceMasks(NamedTuple):
    """The masks of one test image, and the pieces into which they divide it.

    Attributes:
        masks: (N, Mh, Mw) bool, each with at least one pixel.
        index_map: (height, width) int64, of any size: the piece that each pixel belongs to, -1
            where it keeps its own scores.
        membership: (R, N) bool, the masks whose mean score each of R pieces takes; None where the
            pieces are the masks.
        crops: scores of the masks' crops; None without crops.
    """

    masks: Tensor
    index_map: Tensor
    membership: Tensor | None = None
    crops: CropScores | None = None

    def score_pieces(self, pooled: Tensor) -> Tensor:
        """Scores (R, C) of the pieces, out of the pooled scores (N, C) of the masks."""
        scores = pooled if self.crops is None else self.crops.mix_into(pooled)
        if self.membership is None:
            return scores
        members = self.membership.to(scores)  # (R, N)
        return members @ scores / members.sum(dim=1, keepdim=True)


MaskSource = Callable[[Mapping[str, Any], torch.device], InferenceMasks]


class MaskGenerator(Protocol):
    """The part of a mask generator that inference uses."""

    def load(self, device: torch.device) -> None:
        """Get ready to compute on a device; a second call does nothing."""

    def generate(self, image: np.ndarray) -> Iterable[FoundMask]:
        """Masks (H, W) bool of an image (H, W, 3) uint8 RGB; the same image gets the same ones."""


def build_mask_generator(name: str, *settings: Any) -> Any:
    """Create one of ``MASK_GENERATORS``, a :class:`MaskGenerator`, without loading it.

    Args:
        name: of the generator.
        settings: its model and weights, "" for the usual ones, and its other settings.

    Raises:
        ValueError, ModuleNotFoundError: an unknown name, or settings that the generator refuses.
    """
    if name not in MASK_GENERATORS:
        raise ValueError(
            f"The mask generator {name!r} is unknown; choose one of {', '.join(MASK_GENERATORS)}."
        )
    return pkgutil.resolve_name(MASK_GENERATORS[name])(*settings)


def build_inference_masks(cfg: CfgNode) -> MaskSource | None:
    """What ``MODEL.PIXELCLIP.TEST_MASKS`` says; None for no masks.

    Raises:
        ValueError, ModuleNotFoundError: see :func:`build_mask_generator`.
    """
    node = cfg.MODEL.PIXELCLIP
    choices = (NO_MASKS, GIVEN_MASKS, *MASK_GENERATORS)
    check_choice("MODEL.PIXELCLIP.TEST_MASKS", node.TEST_MASKS, choices)
    check_choice("MODEL.PIXELCLIP.TEST_MASK_OVERLAP", node.TEST_MASK_OVERLAP, OVERLAPS)
    if node.TEST_MASKS == NO_MASKS:
        return None
    if node.TEST_MASKS == GIVEN_MASKS:
        return take_given_masks
    settings = node.TEST_MASK_MODEL, node.TEST_MASK_WEIGHTS
    generator = build_mask_generator(node.TEST_MASKS, *settings)
    averages = node.TEST_MASK_OVERLAP == "mean"
    return GeneratedMasks(generator, tuple(node.MASK_RESOLUTION), averages)


def take_given_masks(inputs: Mapping[str, Any], device: torch.device) -> InferenceMasks:
    """The masks that come with an image, as ``MaskRegionsMapper`` puts them there.

    Args:
        inputs: with ``masks`` and ``mask_index_map``, see :class:`InferenceMasks`.
        device: to which they go.

    Raises:
        ValueError: one of them is missing.
    """
    missing = [key for key in ("masks", "mask_index_map") if key not in inputs]
    if missing:
        raise ValueError(
            f"MODEL.PIXELCLIP.TEST_MASKS is {GIVEN_MASKS!r}, and an image came without "
            f"{' and '.join(missing)}; give them, or choose a mask generator."
        )
    masks, index_map = (to_device(inputs[key], device) for key in ("masks", "mask_index_map"))
    return InferenceMasks(masks, index_map)


class GeneratedMasks:
    """Generates the masks of each image when it is its turn.

    It is not a module: what holds it does not own the parameters of the generator's network.

    Args:
        generator: is loaded for the first image.
        mask_resolution: (Mh, Mw), to which masks are resized for pooling.
        averages: whether a pixel takes the mean of all masks that have it, or else the smallest.
    """

    def __init__(
        self, generator: MaskGenerator, mask_resolution: tuple[int, int], averages: bool = False
    ) -> None:
        self.generator = generator
        self.mask_resolution = mask_resolution
        self.averages = averages

    def __call__(self, inputs: Mapping[str, Any], device: torch.device) -> InferenceMasks:
        """Masks of ``inputs["image"]`` (3, H, W) RGB in 0..255, on a device.

        Raises:
            ValueError, RuntimeError: the generator's model cannot be loaded.
        """
        self.generator.load(device)
        image = inputs["image"].permute(1, 2, 0).cpu().numpy()  # (3, H, W) -> (H, W, 3)
        pixels = np.ascontiguousarray(image.round().clip(0, 255), np.uint8)
        size = (pixels.shape[0], pixels.shape[1])
        division = (MaskOverlaps if self.averages else MaskIndexMap)(size)
        masks = []
        for found in self.generator.generate(pixels):
            division.add(found.mask)
            masks.append(shrink_mask(found.mask, self.mask_resolution))
        stacked = np.array(masks, np.bool_).reshape(-1, *self.mask_resolution)  # also for N = 0
        index_map, membership = division.divide()
        return InferenceMasks(
            to_device(torch.from_numpy(stacked), device),
            to_device(torch.from_numpy(index_map), device),
            None if membership is None else to_device(torch.from_numpy(membership), device),
        )
