"""Read the run-length codes of all masks of one image at chosen rows and columns.

Shapes: N masks of ``height`` x ``width`` pixels, sampled at R rows and C columns. A code walks
through a mask column by column (pixel ``x * height + y``): a count of zeros, one of ones, ...
No full-size bitmap is made: the cost is that of the codes and of the (N, R, C) result.
"""

from array import array
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, NoReturn

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

IntArray = NDArray[np.int64]

# The longest side that a JPEG can have; it bounds the look-up tables, and pixels to 32 bits.
MAX_SIDE = 65_535
# Seven groups of five bits hold every difference between two counts of at most 32 bits.
_MAX_GROUPS_PER_COUNT = 7
# Below this many counts of 35 bits each, no cumulative sum leaves 63 bits.
_MAX_CHARACTERS = 2**28
_FIRST_CHARACTER = 48  # "0" stands for the group 0
_MORE_GROUPS_BIT = 0x20
_SIGN_BIT = 0x10


class RLEError(ValueError):
    """A run-length code that describes no mask of the expected size."""


class _RunsOfOnes(NamedTuple):
    """All runs of ones: pixels ``start`` to ``end`` (exclusive) of mask ``owner``."""

    owner: IntArray  # (runs,)
    start: IntArray  # (runs,)
    end: IntArray  # (runs,)


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

    Example:
        >>> code = {"size": [2, 3], "counts": [2, 3, 1]}
        >>> sample_masks([code], rows=[1, 0], columns=[0, 1, 2]).astype(int).tolist()
        [[[0, 1, 0], [0, 1, 1]]]
    """
    height, width = _common_size(rles, size)
    sorted_rows, row_order = _sorted_unique(rows, height, "rows")
    sorted_columns, column_order = _sorted_unique(columns, width, "columns")
    runs = _read_runs(rles, height * width)
    masks = _fill(runs, len(rles), sorted_rows, sorted_columns, height, width)
    return _reorder(_reorder(masks, row_order, axis=1), column_order, axis=2)


def _common_size(
    rles: Sequence[Mapping[str, Any]], size: tuple[int, int] | None
) -> tuple[int, int]:
    """Check that all masks claim one sensible size, before anything of that size is allocated."""
    if size is None:
        if not len(rles):
            raise ValueError("got no mask; then give size=(height, width) of the image")
        size = _claimed_size(rles, 0)
    height, width = size
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise RLEError(
            f"size is {height}x{width} (height x width); expected sides of 1 to {MAX_SIDE} pixels"
        )
    for index in range(len(rles)):
        claimed = _claimed_size(rles, index)
        if claimed != (height, width):
            _refuse(
                index,
                f"is for {claimed[0]}x{claimed[1]} pixels (height x width); "
                f"expected {height}x{width}",
            )
    return height, width


def _claimed_size(rles: Sequence[Mapping[str, Any]], index: int) -> tuple[int, int]:
    rle = rles[index]
    if not isinstance(rle, Mapping) or "size" not in rle or "counts" not in rle:
        _refuse(index, 'is not of the form {"size": [height, width], "counts": ...}')
    size = rle["size"]
    if (
        not isinstance(size, (list, tuple))
        or len(size) != 2
        or not all(isinstance(side, (int, np.integer)) for side in size)
    ):
        _refuse(index, f"has the size {size!r:.80}; expected [height, width]")
    return int(size[0]), int(size[1])


def _refuse(mask: int, problem: str) -> NoReturn:
    raise RLEError(f"mask {mask} {problem}")


def _sorted_unique(indices: ArrayLike, limit: int, name: str) -> tuple[IntArray, IntArray]:
    """Sorted distinct indices, and where each of the given ones stands among them."""
    given = np.asarray(indices)
    if given.ndim != 1 or (given.size and not np.issubdtype(given.dtype, np.integer)):
        raise ValueError(f"{name} must be (n,) integers; got {given.dtype} {given.shape}")
    if given.size and (given.min() < 0 or given.max() >= limit):
        raise ValueError(f"{name} must lie in 0..{limit - 1}; got {given.min()}..{given.max()}")
    distinct, order = np.unique(given.astype(np.int64), return_inverse=True)
    return distinct, order


def _reorder(masks: NDArray[np.bool_], order: IntArray, axis: int) -> NDArray[np.bool_]:
    natural = np.arange(masks.shape[axis])
    if np.array_equal(order, natural):
        return masks
    if axis == 2 and masks.size and np.array_equal(order, natural[::-1]):
        # Mirrored photographs: OpenCV reverses bytes twenty times faster than NumPy.
        lines = masks.view(np.uint8).reshape(-1, masks.shape[2])  # (N, R, C) -> (N*R, C)
        return cv2.flip(lines, 1).reshape(masks.shape).view(np.bool_)
    return np.take(masks, order, axis=axis)


def _read_runs(rles: Sequence[Mapping[str, Any]], pixels: int) -> _RunsOfOnes:
    """Decode and validate all codes of masks of ``pixels`` pixels."""
    is_text = [isinstance(rle["counts"], (str, bytes)) for rle in rles]
    texts = np.flatnonzero(is_text)
    lists = np.flatnonzero(np.logical_not(is_text))
    text_counts, text_lengths = _decode_texts([rles[i]["counts"] for i in texts.tolist()], texts)
    list_counts, list_lengths = _join_lists([rles[i]["counts"] for i in lists.tolist()], lists)
    owners = np.concatenate([texts, lists])
    counts = np.concatenate([text_counts, list_counts])
    lengths = np.concatenate([text_lengths, list_lengths])
    _check_counts(counts, lengths, owners, pixels)
    return _runs_of_ones(counts, lengths, owners, pixels)


def _starts(lengths: IntArray) -> IntArray:
    return np.cumsum(lengths) - lengths


def _refuse_first(bad: NDArray[np.bool_], lengths: IntArray, owners: IntArray, why: str) -> None:
    """Raise for the mask that holds the first bad one of the concatenated elements, if any."""
    if bad.any():
        segment = np.searchsorted(np.cumsum(lengths), np.argmax(bad), side="right")
        _refuse(int(owners[segment]), why)


def _decode_texts(texts: list[str | bytes], owners: IntArray) -> tuple[IntArray, IntArray]:
    """Counts of all compressed codes in one array, and how many each code has."""
    if not texts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    groups, lengths = _five_bit_groups(texts, owners)
    is_last = (groups & _MORE_GROUPS_BIT) == 0
    _refuse_first(
        ~is_last[np.cumsum(lengths) - 1], np.ones_like(lengths), owners, "breaks off within a count"
    )
    ends = np.flatnonzero(is_last) + 1
    starts = np.concatenate([[0], ends[:-1]])
    counts_per_text = np.diff(np.searchsorted(ends, np.cumsum(lengths), side="right"), prepend=0)
    _refuse_first(
        ends - starts > _MAX_GROUPS_PER_COUNT, counts_per_text, owners, "has a count above 32 bits"
    )
    values = _join_groups(groups, starts, ends)
    return _undo_differences(values, counts_per_text), counts_per_text


def _five_bit_groups(
    texts: list[str | bytes], owners: IntArray
) -> tuple[NDArray[np.uint8], IntArray]:
    """The characters of all codes as numbers in 0..63, and how many each code has."""
    for owner, text in zip(owners, texts, strict=True):
        if not text.isascii():
            _refuse(int(owner), "has a character outside '0' to 'o' in its counts")
    lengths = np.array([len(text) for text in texts], np.int64)
    _refuse_first(lengths == 0, np.ones_like(lengths), owners, "has no counts")
    if lengths.sum() >= _MAX_CHARACTERS:
        raise RLEError(f"the codes have {lengths.sum()} characters; expected below 2**28")
    joined = b"".join(text.encode() if isinstance(text, str) else text for text in texts)
    # A character below "0" wraps around to more than 63.
    groups = np.frombuffer(joined, np.uint8) - np.uint8(_FIRST_CHARACTER)
    _refuse_first(groups > 63, lengths, owners, "has a character outside '0' to 'o' in its counts")
    return groups, lengths


def _join_groups(groups: NDArray[np.uint8], starts: IntArray, ends: IntArray) -> IntArray:
    """Signed numbers out of five-bit groups, the least significant group first."""
    lengths = ends - starts
    shift = 5 * (np.arange(len(groups)) - np.repeat(starts, lengths))
    values = np.add.reduceat((groups & 0x1F).astype(np.int64) << shift, starts)
    is_negative = (groups[ends - 1] & _SIGN_BIT) != 0
    return values - np.where(is_negative, np.int64(1) << 5 * lengths, 0)


def _undo_differences(values: IntArray, lengths: IntArray) -> IntArray:
    """Add to each value, from a mask's fourth on, the count two places before it."""
    padded_lengths = lengths + (lengths & 1)
    first = _starts(padded_lengths)
    slots = np.arange(len(values)) + np.repeat(first - _starts(lengths), lengths)
    padded = np.zeros(padded_lengths.sum(), np.int64)
    padded[slots] = values
    padded[first] = 0  # a mask's first count is no one's predecessor
    pairs = padded.reshape(-1, 2)  # (counts,) -> (counts / 2, 2): two interleaved sums
    sums = np.cumsum(pairs, axis=0)
    before = (sums - pairs)[first // 2]
    sums -= np.repeat(before, padded_lengths // 2, axis=0)
    counts = sums.reshape(-1)[slots]  # (counts / 2, 2) -> (counts,)
    counts[_starts(lengths)] = values[_starts(lengths)]
    return counts


def _join_lists(lists: list[Any], owners: IntArray) -> tuple[IntArray, IntArray]:
    """Counts of all uncompressed codes in one array, and how many each code has."""
    for owner, counts in zip(owners, lists, strict=True):
        if not isinstance(counts, (list, tuple, np.ndarray)):
            _refuse(
                int(owner),
                f"has counts of type {type(counts).__name__}; expected a string or "
                "a list of integers",
            )
        if not len(counts):
            _refuse(int(owner), "has no counts")
    try:
        joined = array("q", chain.from_iterable(lists))
    except (TypeError, OverflowError):
        _refuse_non_integers(lists, owners)
    lengths = np.array([len(counts) for counts in lists], np.int64)
    return np.frombuffer(joined, np.int64) if joined else np.zeros(0, np.int64), lengths


def _refuse_non_integers(lists: list[Any], owners: IntArray) -> NoReturn:
    for owner, counts in zip(owners, lists, strict=True):
        for count in counts:
            if not isinstance(count, (int, np.integer)) or not -(2**63) <= count < 2**63:
                _refuse(int(owner), f"has the count {count!r:.40}; expected an integer of 32 bits")
    raise RLEError("the counts of the masks are not integers")


def _check_counts(counts: IntArray, lengths: IntArray, owners: IntArray, pixels: int) -> None:
    _refuse_first(counts < 0, lengths, owners, "has a negative count")
    _refuse_first(counts > pixels, lengths, owners, f"has a count above its {pixels} pixels")
    if not len(lengths):
        return
    sums = np.add.reduceat(counts, _starts(lengths))
    if (sums != pixels).any():
        wrong = int(np.argmax(sums != pixels))
        _refuse(int(owners[wrong]), f"covers {sums[wrong]} pixels; expected exactly {pixels}")


def _runs_of_ones(
    counts: IntArray, lengths: IntArray, owners: IntArray, pixels: int
) -> _RunsOfOnes:
    segments = np.repeat(np.arange(len(lengths)), lengths)
    # Each mask's counts add up to `pixels`, so that a global sum only needs that much taken off.
    ends = np.cumsum(counts) - segments * pixels
    is_ones = ((np.arange(len(counts)) - _starts(lengths)[segments]) & 1) == 1
    end = ends[is_ones]
    return _RunsOfOnes(owners[segments[is_ones]], end - counts[is_ones], end)


def _fill(
    runs: _RunsOfOnes, number: int, rows: IntArray, columns: IntArray, height: int, width: int
) -> NDArray[np.bool_]:
    """Masks (number, R, C) at sorted distinct rows and columns."""
    R, C = len(rows), len(columns)
    masks = np.zeros((number, R, C), np.uint8)
    owner, point = _toggled_points(runs, rows, columns, height, width)
    if not len(point):
        return masks.view(np.bool_)
    column, row = np.divmod(point, R)
    # Two runs may toggle the same sampled point, which then cancels: hence `at`.
    np.bitwise_xor.at(masks.reshape(-1), (owner * R + row) * C + column, np.uint8(1))
    toggles = np.zeros((number, C), np.uint8)
    np.bitwise_xor.at(toggles.reshape(-1), owner * C + column, np.uint8(1))
    # A column starts with the value that the column before it ended with.
    masks[:, 0, 1:] ^= np.bitwise_xor.accumulate(toggles, axis=1)[:, :-1]
    for i in range(1, R):
        masks[:, i] ^= masks[:, i - 1]
    return masks.view(np.bool_)


def _toggled_points(
    runs: _RunsOfOnes, rows: IntArray, columns: IntArray, height: int, width: int
) -> tuple[IntArray, IntArray]:
    """Sampled points (in column-major order) at which a mask's value changes, and their masks."""
    R, C = len(rows), len(columns)
    column_at_or_after = np.searchsorted(columns, np.arange(width + 1))
    row_at_or_after = np.searchsorted(rows, np.arange(height))
    is_sampled = np.zeros(width + 1, np.bool_)
    is_sampled[columns] = True

    def first_point_at_or_after(pixel: IntArray) -> IntArray:
        x = pixel // height
        y = pixel - x * height
        return column_at_or_after[x] * R + np.where(is_sampled[x], row_at_or_after[y], 0)

    start, end = first_point_at_or_after(runs.start), first_point_at_or_after(runs.end)
    is_seen = start != end
    owner = np.concatenate([runs.owner[is_seen], runs.owner[is_seen]])
    point = np.concatenate([start[is_seen], end[is_seen]])
    inside = point < R * C
    return owner[inside], point[inside]
