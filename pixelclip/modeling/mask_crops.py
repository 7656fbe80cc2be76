"""Crops of masks, as the original CLIP sees them: whole images with one object in focus.

Shapes: N masks of (Mh, Mw), M of them with a crop; images (3, H, W); d the width of the joint
space.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from torch import Tensor
from torch.nn import functional as F

from pixelclip.data.loader import random_state_from
from pixelclip.modeling.clip_loader import load_clip
from pixelclip.utils.transfer import to_device

_SMALLEST_SIDE = 12  # of a crop, in pixels of the image
_CROPS_AT_A_TIME = 256  # in CLIP: more would need more memory without being faster


class CropEmbeddings(NamedTuple):
    """Embeddings (M, d) of crops, and which of the N masks they show: (M,) int64, ascending."""

    embeddings: Tensor
    mask_index: Tensor


@dataclass
class MaskCrops:
    """Embeds crops of masks with CLIP as it was pretrained.

    It is not a module: what holds it does not own CLIP's parameters twice, in checkpoints or
    elsewhere. The crop of a mask is the square about its bounding box, moved into the image; what
    the mask leaves out is blurred.

    Args:
        architecture, pretrained: of CLIP, see :func:`load_clip`.
        padding: side of the square, as a multiple of the bounding box's longer side.
        blur: side of the box filter, as a fraction of the image's shorter side.
        min_area: smallest fraction of the image that a mask with a crop covers.
    """

    architecture: str
    pretrained: str
    padding: float = 1.2
    blur: float = 0.26
    min_area: float = 0.01

    @functools.cached_property
    def encoder(self) -> Any:
        """CLIP's image encoder, built at the first use: most evaluations do without it."""
        with random_state_from(0):  # random weights are the same in every process
            visual: Any = load_clip(self.architecture, self.pretrained).visual
        return visual.requires_grad_(False).eval()

    @torch.no_grad()
    def __call__(
        self,
        images: Sequence[Tensor],
        masks: Tensor,
        image_index: Tensor,
        max_per_image: int | None = None,
    ) -> CropEmbeddings:
        """Embed the crops of a batch's masks.

        Args:
            images: normalized images (3, H, W) of any sizes.
            masks: (N, Mh, Mw) bool, none of them empty.
            image_index: (N,) int64, the image of each mask, ascending; on the host.
            max_per_image: most crops of an image; None for all.
        """
        chosen = self._choose(masks, image_index, max_per_image)
        mask_index, owners = to_device(chosen, masks.device), image_index[chosen].tolist()
        encoder = self.encoder.to(masks.device)
        size = tuple(encoder.image_size)
        boxes = _bounding_boxes(masks[mask_index])
        blurred = {owner: self._blur(images[owner]) for owner in set(owners)}
        crops = [images[0].new_zeros((0, 3, *size))]
        for owner, mask, box in zip(owners, masks[mask_index], boxes, strict=True):
            crop = self._cut(images[owner], blurred[owner], mask, box)[None]
            crops.append(F.interpolate(crop, size, mode="bicubic", antialias=True))
        if not len(chosen):  # a ViT takes no empty batch
            crops.append(images[0].new_zeros((1, 3, *size)))
        batches = torch.cat(crops).split(_CROPS_AT_A_TIME)
        embeddings = torch.cat([encoder(batch) for batch in batches])[: len(chosen)]
        return CropEmbeddings(embeddings.float(), mask_index)

    def _choose(self, masks: Tensor, image_index: Tensor, max_per_image: int | None) -> Tensor:
        """Indices (M,) of the masks that get a crop, ascending, on the host.

        The random choice follows from the masks alone: it is the same on any number of processes.
        """
        areas = masks.flatten(1).sum(dim=1).cpu()  # (N, Mh*Mw) summed to (N,)
        candidates = (areas >= self.min_area * masks[:1].numel()).nonzero().flatten()
        owners = image_index[candidates]
        chosen = []
        for owner in owners.unique().tolist():
            own = candidates[owners == owner]
            generator = torch.Generator().manual_seed(int(areas[own].sum()))
            order = torch.randperm(len(own), generator=generator)
            chosen.append(own[order[:max_per_image]])
        return torch.cat(chosen).sort().values if chosen else candidates

    def _blur(self, image: Tensor) -> Tensor:
        """Box-filtered image (3, H, W); the border is repeated outside."""
        radius = max(1, round(self.blur * min(image.shape[1:]) / 2 - 0.5))
        padded = F.pad(image[None], [radius] * 4, mode="replicate")
        # Along one axis after the other: a square filter would take hundreds of times as long.
        along_rows = F.avg_pool2d(padded, (1, 2 * radius + 1), stride=1)
        return F.avg_pool2d(along_rows, (2 * radius + 1, 1), stride=1)[0]

    def _cut(self, image: Tensor, blurred: Tensor, mask: Tensor, box: Sequence[float]) -> Tensor:
        """The square (3, side, side) about a box (top, left, bottom, right) in fractions."""
        height, width = image.shape[1:]
        rows, columns = mask.shape
        longer = max((box[2] - box[0]) * height, (box[3] - box[1]) * width)
        side = min(round(max(_SMALLEST_SIDE, self.padding * longer)), height, width)
        top = _place((box[0] + box[2]) / 2 * height, side, height)
        left = _place((box[1] + box[3]) / 2 * width, side, width)
        # The nearest mask pixel of each image pixel.
        y = (torch.arange(top, top + side, device=mask.device) * rows) // height
        x = (torch.arange(left, left + side, device=mask.device) * columns) // width
        window = (slice(None), slice(top, top + side), slice(left, left + side))
        return torch.where(mask[y][:, x], image[window], blurred[window])


def _place(center: float, side: int, limit: int) -> int:
    """First pixel of an interval about a center that lies inside 0..limit."""
    return min(max(0, round(center - side / 2)), limit - side)


def _bounding_boxes(masks: Tensor) -> list[list[float]]:
    """(top, left, bottom, right) of each mask (N, Mh, Mw), as fractions of its sides."""
    edges = []
    for is_used in (masks.any(dim=2).float(), masks.any(dim=1).float()):  # (N, Mh), (N, Mw)
        length = is_used.shape[1]
        first = is_used.argmax(dim=1)
        last = length - is_used.flip(1).argmax(dim=1)
        edges.append((first / length, last / length))
    (top, bottom), (left, right) = edges
    return torch.stack([top, left, bottom, right], dim=1).tolist()


def build_mask_crops(cfg: CfgNode) -> MaskCrops:
    """Build what ``MODEL.PIXELCLIP.CROPS`` says.

    Raises:
        ValueError: a value that makes no sense.
    """
    node = cfg.MODEL.PIXELCLIP.CROPS
    if not (node.PADDING >= 1 and 0 < node.BLUR < 1 and 0 <= node.MIN_AREA < 1):
        raise ValueError(
            f"MODEL.PIXELCLIP.CROPS has PADDING {node.PADDING}, BLUR {node.BLUR} and MIN_AREA "
            f"{node.MIN_AREA}; expected at least 1, a fraction and a fraction."
        )
    clip = cfg.MODEL.CLIP
    return MaskCrops(clip.ARCH, clip.PRETRAINED, node.PADDING, node.BLUR, node.MIN_AREA)
