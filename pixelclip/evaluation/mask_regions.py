"""The masks of a test image that are to be classified: its labeled regions, or generated ones.

Shapes: N masks, an image (its label map) of H x W pixels, mask resolution (Mh, Mw), C classes.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetMapper, MetadataCatalog
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pixelclip.data.masks import MaskIndexMap, shrink_mask
from pixelclip.data.rle import RLEError, sample_masks
from pixelclip.data.sa1b_files import CorruptRecordError, parse_mask_rles, read_annotation_bytes

Size = tuple[int, int]
GROUND_TRUTH = "ground_truth"
# Pillow's other readers start programs (EPS) or decode formats that no labels are stored in.
_LABEL_FORMATS = ("PNG", "TIFF", "BMP")


class MaskRegions(NamedTuple):
    """The masks of one image.

    Attributes:
        masks: (N, Mh, Mw) bool, each with at least one pixel.
        classes: (N,) int64, each mask's true class in 0..C-1, or C where most of it is void.
        mask_index_map: (H, W) int64, the mask that paints each pixel, -1 for none.
    """

    masks: Tensor
    classes: Tensor
    mask_index_map: Tensor


def mask_folder_of(masks: str) -> Path | None:
    """The folder that ``TEST.MASKS`` names, None for the ground truth.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if masks == GROUND_TRUTH:
        return None
    folder = Path(masks).expanduser()
    if not masks or not folder.is_dir():
        raise FileNotFoundError(
            f"TEST.MASKS is {masks!r}; it must be {GROUND_TRUTH!r} or a folder with one SA-1B JSON "
            "for each test image, of the image's name."
        )
    return folder


def mask_file(folder: Path, image_file: str) -> Path:
    """The JSON in ``folder`` that holds the masks of an image: that of the same stem."""
    return folder / f"{Path(image_file).stem}.json"


class MaskRegionsMapper:
    """A Detectron2 mapper that adds an image's masks to what another mapper makes of its record.

    The added keys are those of :class:`MaskRegions`: ``masks``, ``classes`` and ``mask_index_map``.

    Args:
        image_mapper: makes the model's input; must keep the image's ``height`` and ``width``.
        num_classes: C.
        ignore_label: the void label in the label PNGs.
        mask_resolution: (Mh, Mw), at which the masks are to be pooled.
        mask_folder: SA-1B JSON files of the images' stems; None for the ground truth's regions.
    """

    @configurable
    def __init__(
        self,
        image_mapper: Callable[[dict[str, Any]], dict[str, Any]],
        *,
        num_classes: int,
        ignore_label: int,
        mask_resolution: Size,
        mask_folder: Path | None,
    ) -> None:
        self.image_mapper = image_mapper
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.mask_resolution = mask_resolution
        self.mask_folder = mask_folder

    @classmethod
    def from_config(cls, cfg: CfgNode, dataset_name: str) -> dict[str, Any]:
        """Arguments of the constructor for a registered data set."""
        metadata = MetadataCatalog.get(dataset_name)
        return {
            "image_mapper": DatasetMapper(cfg, False),
            "num_classes": len(metadata.stuff_classes),
            "ignore_label": metadata.ignore_label,
            "mask_resolution": tuple(cfg.MODEL.PIXELCLIP.MASK_RESOLUTION),
            "mask_folder": mask_folder_of(cfg.TEST.MASKS),
        }

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """Read one image and its masks.

        Raises:
            ValueError: the label map cannot be read, has another size than the image or values
                that are not classes; or the mask file has no masks of this image. It is named.
        """
        label_file = record["sem_seg_file_name"]
        label = read_label_map(label_file, self.num_classes, self.ignore_label)
        inputs = self.image_mapper(record)
        if label.shape != (inputs["height"], inputs["width"]):
            raise ValueError(
                f"{label_file} has {label.shape} pixels (height, width); its image has "
                f"{(inputs['height'], inputs['width'])}. Prepare the data set again."
            )
        return {**inputs, **self._regions(record["file_name"], label)._asdict()}

    def _regions(self, image_file: str, label: NDArray[np.int64]) -> MaskRegions:
        if self.mask_folder is None:
            return ground_truth_regions(label, self.num_classes, self.mask_resolution)
        path = mask_file(self.mask_folder, image_file)
        try:
            rles = _read_rles(path)
            return generated_regions(rles, label, self.num_classes, self.mask_resolution)
        except (CorruptRecordError, RLEError, OSError) as error:
            raise ValueError(f"{path} does not hold the masks of {image_file}: {error}") from error


def _read_rles(path: Path) -> list[dict[str, Any]]:
    try:
        record = {"annotation_file_name": str(path), "annotation_span": None}
        return parse_mask_rles(read_annotation_bytes(record))
    except CorruptRecordError as error:
        # Nothing to train on, but a generator may well have found nothing.
        if error.kind == "no masks":
            return []
        raise


def read_label_map(path: str, num_classes: int, ignore_label: int) -> NDArray[np.int64]:
    """Labels (H, W) in 0..C-1, and C where the pixel is void.

    Raises:
        ValueError: no image that can be read, more than one channel, or a value that is neither a
            class nor void.
    """
    try:
        with Image.open(path, formats=_LABEL_FORMATS) as image:
            label = np.array(image, dtype=np.int64)
    except Exception as error:  # Pillow raises a dozen types on corrupt files
        raise ValueError(f"{path} cannot be read as a label map: {error}") from error
    if label.ndim != 2:
        raise ValueError(f"{path} has shape {label.shape}; expected one channel of class numbers.")
    is_void = label == ignore_label
    label[is_void] = num_classes
    wrong = np.unique(label[~is_void & ((label < 0) | (label >= num_classes))])
    if len(wrong):
        raise ValueError(
            f"{path} has the labels {wrong[:5].tolist()}; expected 0..{num_classes - 1} or "
            f"{ignore_label}. Prepare a benchmark's labels again; of your own data set, add these "
            "classes to its names, or give the value of pixels that do not count as ignore_label."
        )
    return label


def ground_truth_regions(
    label: NDArray[np.int64], num_classes: int, mask_resolution: Size
) -> MaskRegions:
    """One mask per class that a label map (H, W) has; void (C) belongs to none."""
    present = np.unique(label[label < num_classes])
    masks = [shrink_mask(label == value, mask_resolution) for value in present]
    class_to_mask = np.full(num_classes + 1, -1)
    class_to_mask[present] = np.arange(len(present))
    return _to_regions(masks, present, class_to_mask[label], mask_resolution)


def generated_regions(
    rles: Sequence[Mapping[str, Any]],
    label: NDArray[np.int64],
    num_classes: int,
    mask_resolution: Size,
) -> MaskRegions:
    """Masks of any generator; empty ones are left out.

    A mask's true class is the one that most of its pixels have, the lower one of two. Where masks
    overlap, the one of fewer pixels paints, the earlier one of two.

    Args:
        rles: run-length codes of (H, W) masks.
        label: (H, W), void is C.
        num_classes: C.
        mask_resolution: (Mh, Mw).

    Raises:
        RLEError: a code is malformed or of another size.
    """
    rows, columns = (np.arange(side) for side in label.shape)
    index_map = MaskIndexMap((len(rows), len(columns)))
    masks: list[NDArray[np.bool_]] = []
    classes = []
    # One full-size mask at a time, see MaskIndexMap.
    for rle in rles:
        mask = sample_masks([rle], rows, columns, (len(rows), len(columns)))[0]
        if not mask.any():
            continue
        index_map.add(mask)
        masks.append(shrink_mask(mask, mask_resolution))
        classes.append(np.bincount(label[mask], minlength=num_classes + 1).argmax())
    return _to_regions(masks, np.array(classes, np.int64), index_map.index_map, mask_resolution)


def _to_regions(
    masks: Sequence[NDArray[np.bool_]],
    classes: NDArray[np.int64],
    index_map: NDArray[np.int64],
    mask_resolution: Size,
) -> MaskRegions:
    stacked = np.array(masks, np.bool_).reshape(-1, *mask_resolution)  # (N, Mh, Mw), also for N = 0
    return MaskRegions(*(torch.from_numpy(array) for array in (stacked, classes, index_map)))
