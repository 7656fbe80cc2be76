"""Turn a record of an image with unlabelled masks into a training sample."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform
from numpy.typing import NDArray

from pixelclip.data.broken_record import BrokenRecordError
from pixelclip.data.image_reading import ImageReadError, read_rgb_image
from pixelclip.data.mask_annotations import parse_mask_rles
from pixelclip.data.nearest_sampling import follow_transforms, torch_nearest
from pixelclip.data.record_reading import read_annotation_bytes, read_image_bytes
from pixelclip.data.rle import RLEError, sample_masks
from pixelclip.data.strong_augmentation import Rectangle, StrongAugmentation

logger = logging.getLogger(__name__)

# Resizing the short side to a fixed length would make a strip huge, or empty under MAX_SIZE_TRAIN.
_MAX_ASPECT_RATIO = 64


class SSDColorAugmentation(T.Augmentation):
    """The colour augmentation of SSD, as Detectron2's PointRend project has it, for RGB images.

    A transform that stands bare among augmentations is wrapped by Detectron2 in a class that cannot
    be pickled, as spawned loading processes need it.
    """

    def get_transform(self, image: NDArray[np.uint8]) -> T.Transform:
        """The transform; it draws its random numbers itself, when it is applied."""
        return ColorAugSSDTransform(img_format="RGB")


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
        weak_augmentations: Sequence[T.Augmentation | T.Transform],
        mask_resolution: tuple[int, int],
        image_format: str,
    ) -> None:
        """Args:
        weak_augmentations: Detectron2 augmentations for an RGB image; of those that move pixels,
            resizes, crops and flips.
        mask_resolution: (height, width) of the masks.
        image_format: order of the channels of the result, "RGB" or "BGR".
        """
        if image_format not in ("RGB", "BGR"):
            raise ValueError(f"INPUT.FORMAT is {image_format!r}; expected 'RGB' or 'BGR'")
        self.weak_augmentation = T.AugmentationList(weak_augmentations)
        self.strong_augmentation = StrongAugmentation()
        self.mask_resolution = mask_resolution
        self.image_format = image_format
        self.broken_counts: Counter[str] = Counter()

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        if not is_train:
            raise ValueError("MaskDatasetMapper makes training samples; test with DatasetMapper")
        height, width = cfg.MODEL.PIXELCLIP.MASK_RESOLUTION
        return {
            "weak_augmentations": _weak_augmentations(cfg),
            "mask_resolution": (height, width),
            "image_format": cfg.INPUT.FORMAT,
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

        Raises:
            BrokenRecordError: the image, its JSON or its masks cannot be used; says which and why.
        """
        try:
            return self._map(record)
        except BrokenRecordError as error:
            where = f"{record['image_id']} of {record['file_name']}"
            raise BrokenRecordError(f"{where}: {error}", error.kind) from error

    def _map(self, record: Mapping[str, Any]) -> dict[str, Any]:
        rles = parse_mask_rles(read_annotation_bytes(record))
        photograph = _decode(read_image_bytes(record))
        weak = T.AugInput(photograph)
        transforms = self.weak_augmentation(weak)
        strong, rectangle = self.strong_augmentation(weak.image)
        size = photograph.shape[:2]
        return {
            "image": self._to_tensor(weak.image),
            "image_strong": self._to_tensor(strong),
            "masks": self._masks(rles, size, transforms, rectangle),
            "height": size[0],
            "width": size[1],
            "file_name": record["file_name"],
            "image_id": record["image_id"],
        }

    def _to_tensor(self, image: NDArray[np.uint8]) -> torch.Tensor:
        if self.image_format == "BGR":
            image = image[:, :, ::-1]
        # (H, W, 3) -> (3, H, W)
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))

    def _masks(
        self,
        rles: Sequence[Mapping[str, Any]],
        size: tuple[int, int],
        transforms: T.TransformList,
        rectangle: Rectangle,
    ) -> torch.Tensor:
        """Masks at mask resolution, as if each were decoded, transformed, cut out and resized."""
        source = follow_transforms(transforms, *size)
        rows = torch_nearest(len(source.rows), self.mask_resolution[0])
        columns = torch_nearest(len(source.columns), self.mask_resolution[1])
        try:
            masks = sample_masks(rles, source.rows[rows], source.columns[columns], size)
        except RLEError as error:
            raise BrokenRecordError(str(error), "masks") from error
        top, bottom = np.searchsorted(rows, (rectangle.top, rectangle.bottom))
        left, right = np.searchsorted(columns, (rectangle.left, rectangle.right))
        masks[:, top:bottom, left:right] = False
        is_visible = masks.reshape(len(masks), -1).any(axis=1)  # (N, Mh, Mw) -> (N, Mh*Mw)
        return torch.from_numpy(masks[is_visible])

    def _count(self, error: BrokenRecordError) -> None:
        self.broken_counts[error.kind] += 1
        total = self.broken_counts.total()
        # At 1, 2, 4, 8, ...: a data set full of broken records must not flood the log.
        if total & (total - 1) == 0:
            kinds = ", ".join(f"{kind}: {n}" for kind, n in self.broken_counts.items())
            logger.warning("Skipped %d broken records (%s); latest: %s", total, kinds, error)


def _decode(data: bytes) -> NDArray[np.uint8]:
    try:
        image = read_rgb_image(data)
    except ImageReadError as error:
        raise BrokenRecordError(str(error), "image") from error
    height, width = image.shape[:2]
    if max(height, width) > _MAX_ASPECT_RATIO * min(height, width):
        raise BrokenRecordError(
            f"the image is {height}x{width} (height x width); expected sides of a ratio of at most "
            f"{_MAX_ASPECT_RATIO}",
            "image",
        )
    return image


def _weak_augmentations(cfg: CfgNode) -> list[T.Augmentation | T.Transform]:
    """Resize, crop, colours and flip (DESIGN: "Training data"), for an RGB image."""
    augmentations: list[T.Augmentation | T.Transform] = [
        T.ResizeShortestEdge(
            cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING
        )
    ]
    if cfg.INPUT.CROP.ENABLED:
        augmentations.append(T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
    if cfg.INPUT.COLOR_AUG_SSD:
        augmentations.append(SSDColorAugmentation())
    if cfg.INPUT.RANDOM_FLIP != "none":
        flip = cfg.INPUT.RANDOM_FLIP
        augmentations.append(
            T.RandomFlip(horizontal=flip == "horizontal", vertical=flip == "vertical")
        )
    return augmentations
