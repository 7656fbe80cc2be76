"""Connected regions of a label map, as run-length codes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

# Shares of the image. A label map comes from 64 x 64 features: this is about four of them.
DEFAULT_MIN_SHARE = 0.001


@dataclass(frozen=True)
class Region:
    """Pixels of one class that touch each other.

    Attributes:
        index, name: of the class.
        share: of the image's pixels, in 0..1.
        similarity: mean cosine of these pixels with the class, in -1..1.
        rle: COCO's run-length code, ``{"size": [H, W], "counts": text}``.
    """

    index: int
    name: str
    share: float
    similarity: float
    rle: dict[str, Any]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W), True inside."""
        return coco_mask.decode(self.rle).astype(bool)


def find_regions(
    labels: NDArray[np.integer], similarity: NDArray[np.floating], names: Sequence[str]
) -> list[Region]:
    """The regions of a label map, connected over the pixels' edges, the largest first.

    Args:
        labels: (H, W) indices of the names.
        similarity: (H, W) cosine of each pixel with its class.
        names: K class names.
    """
    from skimage import measure  # takes long to import

    # COCO's codes walk through a mask column by column, so everything is transposed first.
    numbers = measure.label(labels.T, background=-1, connectivity=1)  # (W, H), from 1 on
    flat = numbers.ravel()
    areas = np.bincount(flat)[1:]
    shares, means = areas / flat.size, np.bincount(flat, weights=similarity.T.ravel())[1:] / areas
    indices = np.zeros(len(areas), np.int64)
    indices[flat - 1] = labels.T.ravel()
    codes = _encode(numbers)
    return [
        Region(int(indices[i]), names[indices[i]], shares[i].item(), means[i].item(), codes[i])
        for i in np.argsort(-areas, kind="stable")
    ]


def _encode(numbers: NDArray[np.integer]) -> list[dict[str, Any]]:
    """Run-length codes of all regions, from a map (W, H) of their numbers, without their masks."""
    width, height = numbers.shape
    flat = numbers.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=0))
    ends = np.append(starts[1:], flat.size)
    order = np.argsort(flat[starts], kind="stable")
    borders = np.flatnonzero(np.diff(flat[starts][order])) + 1
    codes = []
    for runs in np.split(order, borders):
        edges = np.stack([starts[runs], ends[runs]], axis=1).ravel()  # (R, 2) -> (R * 2,)
        counts = np.diff(edges, prepend=0, append=flat.size).tolist()
        if counts[-1] == 0:  # no zeros after the last run: pycocotools' codes leave them out
            counts.pop()
        codes.append({"size": [height, width], "counts": counts})
    compressed = coco_mask.frPyObjects(codes, height, width)
    return [{**code, "counts": code["counts"].decode()} for code in compressed]
