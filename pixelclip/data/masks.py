"""Masks at another size by nearest neighbor, as bits, and the masks that each pixel belongs to."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor

IntArray = NDArray[np.int64]


def torch_nearest(length: int, new_length: int) -> IntArray:
    """Index in 0..length-1 that ``F.interpolate(mode="nearest")`` takes for each new pixel."""
    ramp = torch.arange(length, dtype=torch.float32)[None, None]  # (length,) -> (1, 1, length)
    resized = F.interpolate(ramp, size=new_length, mode="nearest")
    return resized[0, 0].long().numpy()  # (1, 1, new_length) -> (new_length,)


def shrink_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Resize a mask (H, W) by nearest neighbor to ``size``, as in training, without losing it.

    A mask that falls between the sampled pixels becomes those cells that hold one of its pixels.
    """
    height, width = mask.shape
    small = mask[np.ix_(torch_nearest(height, size[0]), torch_nearest(width, size[1]))]
    if not small.any():
        rows, columns = np.nonzero(mask)
        small[rows * size[0] // height, columns * size[1] // width] = True
    return small


def split_by_image(rows: Tensor, image_index: Tensor, num_images: int) -> tuple[Tensor, ...]:
    """The rows (n, ...) of each image, of the rows (N, ...) of all of them.

    Args:
        rows: of masks.
        image_index: (N,) int64, the image of each row, ascending; on the host, which then need not
            wait for a GPU.
        num_images: of the result.
    """
    return rows.split(torch.bincount(image_index, minlength=num_images).tolist())


def exceeds_one_pixel(masks: Tensor) -> Tensor:
    """Which (...) of the masks (..., Mh, Mw) bool have more than one pixel."""
    # Two pixels differ in row or column, and looking for used ones is faster than counting pixels.
    pixels = masks.view(torch.uint8)
    rows, columns = (pixels.amax(dim=side).sum(dim=-1) for side in (-1, -2))
    return rows + columns > 2


def pack_masks(masks: Tensor) -> Tensor:
    """Masks (N, Mh, Mw) bool as bits (N, Mh, ceil(Mw / 8)) uint8, an eighth of the bytes."""
    return torch.from_numpy(np.packbits(masks.numpy(), axis=2))


def pack_sample(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A training sample with ``packed_masks`` instead of ``masks``: those of several pixels."""
    packed = dict(sample)
    if "masks" in packed:
        masks = packed.pop("masks")
        packed["packed_masks"] = pack_masks(masks[exceeds_one_pixel(masks)])
    return packed


def unpack_masks(bits: Tensor, width: int) -> Tensor:
    """Masks (N, Mh, width) bool of what :func:`pack_masks` returned, on its device."""
    places = 2 ** torch.arange(7, -1, -1, device=bits.device, dtype=torch.uint8)
    # (N, Mh, bytes, 8) -> (N, Mh, 8 * bytes)
    return (bits[..., None] & places).bool().flatten(2)[:, :, :width]


class MaskIndexMap:
    """Which of several overlapping masks each pixel belongs to: the smallest one that has it.

    Masks are added one at a time: hundreds of full size would take hundreds of megabytes.
    ``index_map`` (height, width) int64 has the number of each pixel's mask, -1 for none: that of
    the fewest pixels, the earlier one of two. ``count`` is how many masks there are.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.index_map: IntArray = np.full(size, -1)
        self.count = 0
        self._area: IntArray = np.full(size, self.index_map.size + 1)

    def add(self, mask: NDArray[np.bool_]) -> None:
        """Add the next mask (height, width)."""
        area = np.count_nonzero(mask)
        gained = mask & (area < self._area)
        self.index_map[gained], self._area[gained] = self.count, area
        self.count += 1

    def divide(self) -> tuple[IntArray, None]:
        """The index map; each mask is a piece of its own, see :class:`MaskOverlaps`."""
        return self.index_map, None


class MaskOverlaps:
    """The pieces into which overlapping masks divide an image, and the masks that have each piece.

    Masks are added one at a time and kept as run-length codes. Each has a random number of 64 bits;
    the pixels of a piece are those where the numbers of their masks give the same sum.

    Args:
        size: (height, width).
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self._sums = np.zeros(size, np.uint64)
        self._numbers = np.random.default_rng(0)
        self._codes: list[Any] = []

    def add(self, mask: NDArray[np.bool_]) -> None:
        """Add the next mask (height, width)."""
        self._sums[mask] += self._numbers.integers(1, 2**64, dtype=np.uint64)
        self._codes.append(coco_mask.encode(np.asfortranarray(mask, np.uint8)))

    def divide(self) -> tuple[IntArray, NDArray[np.bool_]]:
        """The piece (height, width) of each pixel, -1 for none, and its masks.

        The masks are (R, N) bool for R pieces and N masks; each piece has at least one.
        """
        sums, first, pieces = np.unique(self._sums, return_index=True, return_inverse=True)
        has_mask = sums > 0  # the pixels without a mask come first, if there are any
        membership = np.zeros((has_mask.sum(), len(self._codes)), np.bool_)
        for index, code in enumerate(self._codes):
            membership[:, index] = coco_mask.decode(code).ravel()[first[has_mask]]
        return pieces.reshape(self._sums.shape) - np.count_nonzero(~has_mask), membership
