"""Read the run-length codes of all masks of one image at chosen rows and columns, or resize them.

Shapes: N masks of ``height`` x ``width`` pixels, sampled at R rows and C columns. A code walks
through a mask column by column (pixel ``x * height + y``): a count of zeros, one of ones, ...
No full-size bitmap is made, so that the cost is that of the codes and of the (N, R, C) result:
20 ms for 100 masks of SA-1B's size, against 726 ms and more through pycocotools.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools import mask as coco_mask

IntArray = NDArray[np.int64]

# The longest side that a JPEG can have; it bounds the look-up tables, and pixels to 32 bits.
MAX_SIDE = 65_535
# Seven groups of five bits hold every difference between two counts of at most 32 bits.
_MAX_GROUPS_PER_COUNT = 7
_MORE_GROUPS_BIT, _SIGN_BIT = 0x20, 0x10


class RLEError(ValueError):
    """A run-length code that does not describe a mask of the expected size."""


def sample_masks(
    rles: Sequence[Mapping[str, Any]],
    rows: ArrayLike,
    columns: ArrayLike,
    size: tuple[int, int] | None = None,
) -> NDArray[np.bool_]:
    """Values of N run-length coded masks at the crossings of R rows and C columns.

    Equals decoding each mask and indexing it with ``mask[rows][:, columns]``.

    Args:
        rles: N COCO run-length codes, ``{"size": [height, width], "counts": counts}``; counts are a
            compressed string (or bytes) or a list of integers.
        rows: (R,) integers in 0..height-1 in any order, repeats allowed.
        columns: (C,) integers in 0..width-1 in any order, repeats allowed.
        size: (height, width) that every mask must have; by default the first mask's.

    Returns:
        (N, R, C) bool array.

    Raises:
        RLEError: a code is malformed, its size is not ``size``, or its runs do not add up to it.
        ValueError: a row or column outside the masks, or no mask and no ``size``.
    """
    height, width = _common_size(rles, size)
    sorted_rows, row_order = _sorted_unique(rows, height, "rows")
    sorted_columns, column_order = _sorted_unique(columns, width, "columns")
    edges, numbers = _read_all_edges([rle["counts"] for rle in rles], height * width)
    masks = _fill(edges, numbers, sorted_rows, sorted_columns, height, width)
    return _reorder(_reorder(masks, row_order, axis=1), column_order, axis=2)


def resample_codes(
    rles: Sequence[Mapping[str, Any]], rows: IntArray, columns: IntArray, size: tuple[int, int]
) -> list[dict[str, Any]]:
    """Run-length codes of what :func:`sample_masks` returns, without making a bitmap.

    Args:
        rles: N codes, as there.
        rows: (R,) ascending distinct integers in 0..height-1.
        columns: (C,) ascending distinct integers in 0..width-1.
        size: (height, width) that every mask must have.

    Returns:
        N codes ``{"size": [R, C], "counts": bytes}``, compressed, as pycocotools makes them.

    Raises:
        RLEError: as :func:`sample_masks`.
    """
    height, width = _common_size(rles, size)
    R, C = len(rows), len(columns)
    codes = []
    for index, rle in enumerate(rles):
        edges = _read_edges(index, rle["counts"], height * width)
        points = _sampled_points(edges, rows, columns, height, width)
        # Two runs that meet become one, and one between the sampled points disappears.
        points, repeats = np.unique(points[points < R * C], return_counts=True)
        counts = np.diff(points[repeats % 2 == 1], prepend=0, append=R * C)
        codes.append({"size": [R, C], "counts": counts.tolist()})
    return coco_mask.frPyObjects(codes, R, C)


def _common_size(
    rles: Sequence[Mapping[str, Any]], size: tuple[int, int] | None
) -> tuple[int, int]:
    """Check that all masks claim one sensible size, before anything of that size is allocated."""
    claimed_sizes = [_claimed_size(index, rle) for index, rle in enumerate(rles)]
    if size is None and not claimed_sizes:
        raise ValueError("got no mask; then give size=(height, width) of the image")
    height, width = size or claimed_sizes[0]
    if not (min(height, width) >= 1 and max(height, width) <= MAX_SIDE):
        raise RLEError(f"size is {height}x{width}; expected sides of 1 to {MAX_SIDE} pixels")
    for index, (h, w) in enumerate(claimed_sizes):
        if (h, w) != (height, width):
            _refuse(index, f"is for {h}x{w} pixels (height x width); expected {height}x{width}")
    return height, width


def _claimed_size(index: int, rle: Mapping[str, Any]) -> tuple[int, int]:
    size = rle.get("size") if isinstance(rle, Mapping) and "counts" in rle else None
    is_pair = isinstance(size, (list, tuple)) and len(size) == 2
    if size is None or not is_pair or not all(isinstance(side, int) for side in size):
        _refuse(index, f'is {rle!r:.80}; expected {{"size": [height, width], "counts": ...}}')
    return size[0], size[1]


def _refuse(mask: int, problem: str) -> NoReturn:
    raise RLEError(f"mask {mask} {problem}")


def _sorted_unique(indices: ArrayLike, limit: int, name: str) -> tuple[IntArray, IntArray]:
    """Sorted distinct indices, and where each of the given ones stands among them."""
    given = np.asarray(indices)
    is_whole = given.ndim == 1 and given.dtype.kind in "iu"
    if given.size and not (is_whole and given.min() >= 0 and given.max() < limit):
        raise ValueError(f"{name} must be (n,) integers in 0..{limit - 1}; got {given!r:.80}")
    distinct, order = np.unique(given.astype(np.int64), return_inverse=True)
    return distinct, order


def _reorder(masks: NDArray[np.bool_], order: IntArray, axis: int) -> NDArray[np.bool_]:
    natural = np.arange(masks.shape[axis])
    if np.array_equal(order, natural):
        return masks
    if axis == 2 and masks.size and np.array_equal(order, natural[::-1]):
        # Flipped images: OpenCV reverses bytes twenty times faster than NumPy.
        lines = masks.view(np.uint8).reshape(-1, masks.shape[2])  # (N, R, C) -> (N*R, C)
        return cv2.flip(lines, 1).reshape(masks.shape).view(np.bool_)
    return np.take(masks, order, axis=axis)


def _read_all_edges(codes: Sequence[Any], pixels: int) -> tuple[IntArray, IntArray]:
    """What :func:`_read_edges` returns for each mask, in one array, and the number of each."""
    decoded = _decode_valid_texts(codes, pixels)
    if decoded is None:  # one by one, which knows what is wrong with which
        edges = [_read_edges(index, counts, pixels) for index, counts in enumerate(codes)]
        numbers = np.array([len(ends) for ends in edges], np.int64)
        return np.concatenate([*edges, np.empty(0, np.int64)]), numbers
    counts, numbers = decoded
    ends = _running_sums(counts, numbers)
    numbers_of_edges = numbers // 2 * 2
    return ends[_positions(numbers) < np.repeat(numbers_of_edges, numbers)], numbers_of_edges


def _decode_valid_texts(codes: Sequence[Any], pixels: int) -> tuple[IntArray, IntArray] | None:
    """The counts of all masks in one array, and the number of each; None if any is not valid.

    Decoded together: the time of :func:`_decode_text` is that of many operations on small arrays.
    """
    if not all(isinstance(counts, (str, bytes)) and counts for counts in codes) or not codes:
        return None
    texts = [c.encode("utf-8", "surrogatepass") if isinstance(c, str) else c for c in codes]
    groups = np.frombuffer(b"".join(texts), np.uint8) - np.uint8(ord("0"))
    last = np.cumsum([len(text) for text in texts]) - 1  # group of each text
    is_last = (groups & _MORE_GROUPS_BIT) == 0
    if groups.max() > 63 or not is_last[last].all():
        return None
    counts = _join_groups(groups, is_last)
    if counts is None:
        return None
    numbers = np.diff(np.cumsum(is_last)[last], prepend=0)
    # From the fourth on, each is stored as its difference to the one two places before it.
    position = _positions(numbers)
    is_odd, is_even = position % 2 == 1, (position % 2 == 0) & (position > 0)
    counts[is_odd] = _running_sums(counts[is_odd], numbers // 2)
    counts[is_even] = _running_sums(counts[is_even], (numbers - 1) // 2)
    totals = np.add.reduceat(counts, np.cumsum(numbers) - numbers)
    is_valid = counts.min() >= 0 and counts.max() <= pixels and (totals == pixels).all()
    return (counts, numbers) if is_valid else None


def _positions(lengths: IntArray) -> IntArray:
    """0, 1, 2, ... of each part of an array, whose parts have these lengths."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def _running_sums(values: IntArray, lengths: IntArray) -> IntArray:
    """Cumulative sums within each part of an array, whose parts have these lengths."""
    sums = np.cumsum(values)
    before = np.concatenate([[0], sums])[np.cumsum(lengths) - lengths]
    return sums - np.repeat(before, lengths)


def _read_edges(mask: int, counts: Any, pixels: int) -> IntArray:
    """(2 runs,) first pixel of each run of ones and the one after its end, of a valid code."""
    if not isinstance(counts, (str, bytes, list, tuple)):
        problem = f"has counts of type {type(counts).__name__}"
        _refuse(mask, f"{problem}; expected a string or a list of integers")
    if not counts:
        _refuse(mask, "has no counts")
    is_text = isinstance(counts, (str, bytes))
    values = _decode_text(mask, counts) if is_text else _check_list(mask, counts)
    if values.min() < 0:
        _refuse(mask, "has a negative count")
    if values.max() > pixels:
        _refuse(mask, f"has a count above its {pixels} pixels")
    ends = np.cumsum(values)
    if ends[-1] != pixels:
        _refuse(mask, f"covers {ends[-1]} pixels; expected exactly {pixels}")
    return ends[: len(ends) // 2 * 2]


def _check_list(mask: int, counts: Any) -> IntArray:
    for count in counts:
        if not isinstance(count, int) or abs(count) >= 2**63:
            _refuse(mask, f"has the count {count!r:.40}; expected an integer of 32 bits")
    return np.array(counts, np.int64)


def _decode_text(mask: int, text: Any) -> IntArray:
    """The counts of a compressed code: signed numbers in groups of five bits, the least first."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    # A character below "0" wraps around to more than 63; what is not ASCII is above it anyway.
    groups = np.frombuffer(data, np.uint8) - np.uint8(ord("0"))
    if groups.max() > 63:
        _refuse(mask, "has a character outside '0' to 'o' in its counts")
    is_last = (groups & _MORE_GROUPS_BIT) == 0
    if not is_last[-1]:
        _refuse(mask, "is truncated within a count")
    counts = _join_groups(groups, is_last)
    if counts is None:
        _refuse(mask, "has a count above 32 bits")
    # From the fourth on, each is stored as its difference to the one two places before it.
    counts[1::2] = np.cumsum(counts[1::2])
    counts[2::2] = np.cumsum(counts[2::2])
    return counts


def _join_groups(groups: NDArray[np.uint8], is_last: NDArray[np.bool_]) -> IntArray | None:
    """Signed numbers out of their groups of five bits; None if one has too many groups."""
    ends = np.flatnonzero(is_last) + 1
    lengths = np.diff(ends, prepend=0)
    if lengths.max() > _MAX_GROUPS_PER_COUNT:
        return None
    starts = ends - lengths
    shift = 5 * _positions(lengths)
    counts = np.add.reduceat((groups & 0x1F).astype(np.int64) << shift, starts)
    counts -= ((groups[is_last] & _SIGN_BIT) != 0).astype(np.int64) << 5 * lengths
    return counts


def _fill(
    edges: IntArray,
    numbers: IntArray,
    rows: IntArray,
    columns: IntArray,
    height: int,
    width: int,
) -> NDArray[np.bool_]:
    """Masks (N, R, C) at sorted distinct rows and columns; each has its number of the edges."""
    N, R, C = len(numbers), len(rows), len(columns)
    masks, toggles = np.zeros((N, R, C), np.uint8), np.zeros((N, C), np.uint8)
    if not masks.size:
        return masks.view(np.bool_)
    point = _sampled_points(edges, rows, columns, height, width)
    mask = np.repeat(np.arange(N), numbers)
    is_seen = np.repeat(point[::2] != point[1::2], 2) & (point < R * C)
    mask, (column, row) = mask[is_seen], np.divmod(point[is_seen], R)
    # The value changes there. Two runs may toggle the same point, which then cancels: hence `at`.
    np.bitwise_xor.at(masks.reshape(-1), (mask * R + row) * C + column, np.uint8(1))
    np.bitwise_xor.at(toggles.reshape(-1), mask * C + column, np.uint8(1))
    # A column starts with the value that the column before it ended with.
    masks[:, 0, 1:] ^= np.bitwise_xor.accumulate(toggles, axis=1)[:, :-1]
    for i in range(1, R):
        masks[:, i] ^= masks[:, i - 1]
    return masks.view(np.bool_)


def _sampled_points(
    edges: IntArray, rows: IntArray, columns: IntArray, height: int, width: int
) -> IntArray:
    """Number of the first sampled point, column by column, at or after each edge."""
    column_at_or_after = np.searchsorted(columns, np.arange(width + 1))
    row_at_or_after = np.searchsorted(rows, np.arange(height))
    x, y = np.divmod(edges, height)
    row = np.where(np.isin(np.arange(width + 1), columns)[x], row_at_or_after[y], 0)
    return column_at_or_after[x] * len(rows) + row
