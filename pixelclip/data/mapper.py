"""Turn a record of an image with unlabelled masks into a training sample."""

import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from numpy.typing import NDArray

from pixelclip.data.corrupt_record import BrokenRecordError
from pixelclip.data.image_reading import ImageReadError, Photograph
from pixelclip.data.mask_annotations import parse_mask_rles
from pixelclip.data.nearest_sampling import follow_transforms, torch_nearest
from pixelclip.data.record_reading import read_annotation_bytes, read_image_bytes
from pixelclip.data.rle import RLEError, sample_masks
from pixelclip.data.strong_augmentation import Rectangle, StrongAugmentation
from pixelclip.data.weak_augmentation import CropPlan, WeakAugmentation

logger = logging.getLogger(__name__)

# Resizing the short side to a fixed length would make a strip huge, or empty under MAX_SIZE_TRAIN.
_MAX_ASPECT_RATIO = 64


class MaskDatasetMapper:
    """Mapper from a record of ``pixelclip.data.sa1b`` to the model's training input.

    All randomness comes from the global generators of NumPy, ``random`` and torch.

    Attributes:
        broken_counts: how many records this process has skipped, by kind of ``BrokenRecordError``.
    """

    @configurable
    def __init__(
        self,
        *,
        weak_augmentation: WeakAugmentation,
        mask_resolution: tuple[int, int],
        image_format: str,
        reads_masks: bool = True,
    ) -> None:
        """Args:
        weak_augmentation: makes the teacher's image of a photograph.
        mask_resolution: (height, width) of the masks.
        image_format: order of the channels of the result, "RGB" or "BGR".
        reads_masks: read each photograph's masks; else the model is to make them.
        """
        if image_format not in ("RGB", "BGR"):
            raise ValueError(f"INPUT.FORMAT is {image_format!r}; expected 'RGB' or 'BGR'")
        self.weak_augmentation = weak_augmentation
        self.strong_augmentation = StrongAugmentation()
        self.mask_resolution = mask_resolution
        self.image_format = image_format
        self.reads_masks = reads_masks
        self.broken_counts: Counter[str] = Counter()

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        if not is_train:
            raise ValueError("MaskDatasetMapper makes training samples; test with DatasetMapper")
        height, width = cfg.MODEL.PIXELCLIP.MASK_RESOLUTION
        return {
            "weak_augmentation": _build_weak_augmentation(cfg),
            "mask_resolution": (height, width),
            "image_format": cfg.INPUT.FORMAT,
            "reads_masks": cfg.MODEL.PIXELCLIP.MASK_SOURCE == "dataset",
        }

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Any] | None:
        """Map a record, or count and log it and return None (Detectron2 then takes another one)."""
        try:
            return self.map_record(record)
        except BrokenRecordError as error:
            self._count(error)
            return None

    def map_record(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Make the training sample of a record.

        Returns:
            ``image`` and ``image_strong`` (3, H, W) uint8 tensors in ``INPUT.FORMAT``; ``masks``
            (N, Mh, Mw) bool tensor at mask resolution, without the masks that have no pixel in this
            crop (N may be 0); ``height``, ``width`` of the photograph; ``file_name``; ``image_id``.
            Where masks are not read, ``mask_seed`` instead of ``masks``: a random integer.

        Raises:
            BrokenRecordError: the image, its JSON or its masks cannot be used; says which and why.
        """
        try:
            return self._map(record)
        except BrokenRecordError as error:
            where = f"{record['image_id']} of {record['file_name']}"
            raise BrokenRecordError(f"{where}: {error}", error.kind) from error

    def _map(self, record: Mapping[str, Any]) -> dict[str, Any]:
        rles = parse_mask_rles(read_annotation_bytes(record)) if self.reads_masks else None
        weak, plan = self._weak_image(read_image_bytes(record))
        strong, rectangle = self.strong_augmentation(weak)
        return {
            "image": self._to_tensor(weak),
            "image_strong": self._to_tensor(strong),
            **(
                {"mask_seed": random.randrange(2**31)}
                if rles is None
                else {"masks": self._masks(rles, plan, rectangle)}
            ),
            "height": plan.photograph[0],
            "width": plan.photograph[1],
            "file_name": record["file_name"],
            "image_id": record["image_id"],
        }

    def _weak_image(self, data: bytes) -> tuple[NDArray[np.uint8], CropPlan]:
        try:
            photograph = Photograph(data)
            _refuse_strips(photograph.size)
            return self.weak_augmentation(photograph)
        except ImageReadError as error:
            raise BrokenRecordError(str(error), "image") from error

    def _to_tensor(self, image: NDArray[np.uint8]) -> torch.Tensor:
        if self.image_format == "BGR":
            image = image[:, :, ::-1]
        # (H, W, 3) -> (3, H, W)
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))

    def _masks(
        self, rles: Sequence[Mapping[str, Any]], plan: CropPlan, rectangle: Rectangle
    ) -> torch.Tensor:
        """Masks at mask resolution, as if each were decoded, transformed, cut out and resized."""
        size = plan.photograph
        source = follow_transforms(plan.to_transforms(), *size)
        rows = torch_nearest(len(source.rows), self.mask_resolution[0])
        columns = torch_nearest(len(source.columns), self.mask_resolution[1])
        try:
            masks = sample_masks(rles, source.rows[rows], source.columns[columns], size)
        except RLEError as error:
            raise BrokenRecordError(str(error), "masks") from error
        _cover(masks, rectangle, rows, columns)
        is_visible = masks.reshape(len(masks), -1).any(axis=1)  # (N, Mh, Mw) -> (N, Mh*Mw)
        return torch.from_numpy(masks[is_visible])

    def _count(self, error: BrokenRecordError) -> None:
        self.broken_counts[error.kind] += 1
        total = self.broken_counts.total()
        # At 1, 2, 4, 8, ...: a data set full of broken records must not flood the log.
        if total & (total - 1) == 0:
            kinds = ", ".join(f"{kind}: {n}" for kind, n in self.broken_counts.items())
            logger.warning("Skipped %d broken records (%s); latest: %s", total, kinds, error)


def _cover(
    masks: NDArray[np.bool_],
    rectangle: Rectangle,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> None:
    """Clear in masks (..., Mh, Mw), in place, what a rectangle of the image covers.

    ``rows`` (Mh,) and ``columns`` (Mw,), ascending, are those of the image that the masks show.
    """
    top, bottom = np.searchsorted(rows, (rectangle.top, rectangle.bottom))
    left, right = np.searchsorted(columns, (rectangle.left, rectangle.right))
    masks[..., top:bottom, left:right] = False


def _refuse_strips(size: tuple[int, int]) -> None:
    height, width = size
    if max(height, width) > _MAX_ASPECT_RATIO * min(height, width):
        raise BrokenRecordError(
            f"the image is {height}x{width} (height x width); expected sides of a ratio of at most "
            f"{_MAX_ASPECT_RATIO}",
            "image",
        )


def _build_weak_augmentation(cfg: CfgNode) -> WeakAugmentation:
    node = cfg.INPUT
    return WeakAugmentation(
        resize=T.ResizeShortestEdge(
            node.MIN_SIZE_TRAIN, node.MAX_SIZE_TRAIN, node.MIN_SIZE_TRAIN_SAMPLING
        ),
        crop=T.RandomCrop(node.CROP.TYPE, node.CROP.SIZE) if node.CROP.ENABLED else None,
        flip=node.RANDOM_FLIP,
        changes_colors=node.COLOR_AUG_SSD,
        encoder_size=tuple(cfg.MODEL.CLIP.RESOLUTION) if node.REDUCED_JPEG_DECODING else None,
    )
