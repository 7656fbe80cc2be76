"""Turn a record of an image with unlabeled masks into a training sample."""

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

from pixelclip.data.augmentation import CropPlan, Rectangle, StrongAugmentation, WeakAugmentation
from pixelclip.data.images import ImageFile, ImageReadError
from pixelclip.data.masks import torch_nearest
from pixelclip.data.rle import RLEError, sample_masks
from pixelclip.data.sa1b_files import (
    CorruptRecordError,
    parse_mask_rles,
    read_annotation_bytes,
    read_image_bytes,
)

logger = logging.getLogger(__name__)

# Resizing the short side to a fixed length would make a strip huge, or empty under MAX_SIZE_TRAIN.
_MAX_ASPECT_RATIO = 64


class MaskDatasetMapper:
    """Mapper from a record of ``pixelclip.data.sa1b`` to the model's training input.

    All randomness comes from the global generators of NumPy, ``random`` and torch. The counter
    ``corrupt_counts`` has the records that this process has skipped, by kind of corruption.
    """

    @configurable
    def __init__(
        self,
        *,
        weak_augmentation: WeakAugmentation,
        mask_resolution: tuple[int, int],
        image_format: str,
        load_masks: bool = True,
    ) -> None:
        """Args:
        weak_augmentation: makes the teacher's image of an image.
        mask_resolution: (height, width) of the masks.
        image_format: order of the channels of the result, "RGB" or "BGR".
        load_masks: read each image's masks; else the model is to make them.
        """
        if image_format not in ("RGB", "BGR"):
            raise ValueError(f"INPUT.FORMAT is {image_format!r}; expected 'RGB' or 'BGR'")
        self.weak_augmentation = weak_augmentation
        self.strong_augmentation = StrongAugmentation()
        self.mask_resolution = mask_resolution
        self.image_format = image_format
        self.load_masks = load_masks
        self.corrupt_counts: Counter[str] = Counter()

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        if not is_train:
            raise ValueError("MaskDatasetMapper makes training samples; test with DatasetMapper")
        node, crop = cfg.INPUT, cfg.INPUT.CROP
        weak_augmentation = WeakAugmentation(
            resize=T.ResizeShortestEdge(
                node.MIN_SIZE_TRAIN, node.MAX_SIZE_TRAIN, node.MIN_SIZE_TRAIN_SAMPLING
            ),
            crop=T.RandomCrop(crop.TYPE, crop.SIZE) if crop.ENABLED else None,
            flip=node.RANDOM_FLIP,
            color_augmentation=node.COLOR_AUG_SSD,
            encoder_size=tuple(cfg.MODEL.CLIP.RESOLUTION) if node.REDUCED_JPEG_DECODING else None,
        )
        return {
            "weak_augmentation": weak_augmentation,
            "mask_resolution": tuple(cfg.MODEL.PIXELCLIP.MASK_RESOLUTION),
            "image_format": node.FORMAT,
            "load_masks": cfg.MODEL.PIXELCLIP.MASK_SOURCE == "dataset",
        }

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Any] | None:
        """Map a record, or count and log it and return None (Detectron2 then takes another one)."""
        try:
            return self.map_record(record)
        except CorruptRecordError as error:
            self.corrupt_counts[error.kind] += 1
            total = self.corrupt_counts.total()
            # At 1, 2, 4, 8, ...: a data set full of corrupt records must not flood the log.
            if total & (total - 1) == 0:
                kinds = ", ".join(f"{kind}: {n}" for kind, n in self.corrupt_counts.items())
                logger.warning("Skipped %d corrupt records (%s); latest: %s", total, kinds, error)
            return None

    def map_record(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Make the training sample of a record.

        Returns:
            ``image`` and ``image_strong`` (3, H, W) uint8 tensors in ``INPUT.FORMAT``; ``masks``
            (N, Mh, Mw) bool tensor at mask resolution, without the masks that have no pixel in this
            crop (N may be 0); ``height``, ``width`` of the image file; ``file_name``; ``image_id``.
            Where masks are not read, ``mask_seed`` instead of ``masks``: a random integer.

        Raises:
            CorruptRecordError: the image, its JSON or its masks cannot be used; says which and why.
        """
        where = f"{record['image_id']} of {record['file_name']}"
        try:
            return self._map(record)
        except CorruptRecordError as error:
            raise CorruptRecordError(f"{where}: {error}", error.kind) from error
        except ImageReadError as error:
            raise CorruptRecordError(f"{where}: {error}", "image") from error
        except RLEError as error:
            raise CorruptRecordError(f"{where}: {error}", "masks") from error

    def _map(self, record: Mapping[str, Any]) -> dict[str, Any]:
        rles = parse_mask_rles(read_annotation_bytes(record)) if self.load_masks else None
        image = ImageFile(read_image_bytes(record))
        if max(image.size) > _MAX_ASPECT_RATIO * min(image.size):
            expected = f"expected sides of a ratio of at most {_MAX_ASPECT_RATIO}"
            raise ImageReadError(f"the image has (height, width) {image.size}; {expected}")
        weak, plan = self.weak_augmentation(image)
        strong, rectangle = self.strong_augmentation(weak)
        sample = {
            "image": self._to_tensor(weak),
            "image_strong": self._to_tensor(strong),
            "height": plan.original[0],
            "width": plan.original[1],
            "file_name": record["file_name"],
            "image_id": record["image_id"],
        }
        if rles is None:
            return {**sample, "mask_seed": random.randrange(2**31)}
        return {**sample, "masks": self._masks(rles, plan, rectangle)}

    def _to_tensor(self, image: NDArray[np.uint8]) -> torch.Tensor:
        if self.image_format == "BGR":
            image = image[:, :, ::-1]
        # (H, W, 3) -> (3, H, W)
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))

    def _masks(
        self, rles: Sequence[Mapping[str, Any]], plan: CropPlan, rectangle: Rectangle
    ) -> torch.Tensor:
        """Masks at mask resolution, as if each were decoded, transformed, cut out and resized."""
        source_rows, source_columns = plan.source_pixels()
        rows, columns = map(torch_nearest, plan.crop, self.mask_resolution)
        masks = sample_masks(rles, source_rows[rows], source_columns[columns], plan.original)
        # What the rectangle covers: rows and columns are those of the crop, ascending.
        top, bottom = np.searchsorted(rows, rectangle[::2])
        left, right = np.searchsorted(columns, rectangle[1::2])
        masks[:, top:bottom, left:right] = False
        is_visible = masks.reshape(len(masks), -1).any(axis=1)  # (N, Mh, Mw) -> (N, Mh*Mw)
        return torch.from_numpy(masks[is_visible])
