import tracemalloc
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pixelclip.data.rle import RLEError, resample_codes, sample_masks
from tests.data.sa1b_files import encode, random_masks

sides = st.integers(1, 17)
masks_of_one_size = st.tuples(st.integers(1, 5), sides, sides).flatmap(
    lambda shape: hnp.arrays(np.uint8, shape, elements=st.integers(0, 1))
)


def uncompressed_counts(mask: NDArray[np.uint8]) -> list[int]:
    """The run lengths of a mask, found by walking over its pixels."""
    counts, value = [0], 0
    for pixel in mask.T.reshape(-1).tolist():  # (height, width) -> column by column
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def decode_all(rles: list[dict[str, Any]], height: int, width: int) -> NDArray[np.bool_]:
    return sample_masks(rles, np.arange(height), np.arange(width), (height, width))


def read_slowly(text: str) -> list[int]:
    """COCO's counts string read with Python's unbounded integers, one character at a time."""
    counts: list[int] = []
    position = 0
    while position < len(text):
        value = shift = 0
        more = True
        while more:
            group = ord(text[position]) - 48  # IndexError when the text is truncated
            if not 0 <= group < 64:
                raise ValueError("character")
            value |= (group & 31) << shift
            shift += 5
            position += 1
            more = bool(group & 32)
        if group & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    return counts


@given(masks=masks_of_one_size)
def test_sampling_every_pixel_decodes_as_pycocotools(masks: NDArray[np.uint8]) -> None:
    rles = [encode(mask) for mask in masks]
    height, width = masks.shape[1:]
    result = decode_all(rles, height, width)
    assert result.dtype == np.bool_
    np.testing.assert_array_equal(result, masks)
    expected = coco_mask.decode([{**r, "counts": r["counts"].encode()} for r in rles])
    np.testing.assert_array_equal(result, expected.transpose(2, 0, 1))


@given(masks=masks_of_one_size, data=st.data())
def test_any_rows_and_columns_equal_decoding_and_indexing(
    masks: NDArray[np.uint8], data: st.DataObject
) -> None:
    _, height, width = masks.shape
    rows = data.draw(st.lists(st.integers(0, height - 1), max_size=20))
    columns = data.draw(st.lists(st.integers(0, width - 1), max_size=20))
    result = sample_masks([encode(mask) for mask in masks], rows, columns)
    expected = masks[:, np.array(rows, int)][:, :, np.array(columns, int)]
    np.testing.assert_array_equal(result, expected)


@given(masks=masks_of_one_size, data=st.data())
def test_resampled_codes_are_those_of_the_sampled_masks(
    masks: NDArray[np.uint8], data: st.DataObject
) -> None:
    _, height, width = masks.shape
    rows, columns = (
        np.array(sorted(data.draw(st.sets(st.integers(0, side - 1), min_size=1))))
        for side in (height, width)
    )
    codes = [encode(mask) for mask in masks]
    result = resample_codes(codes, rows, columns, (height, width))
    sampled = sample_masks(codes, rows, columns).astype(np.uint8)
    assert [{**code, "counts": code["counts"].decode()} for code in result] == list(
        map(encode, sampled)
    )


def test_codes_of_another_size_are_not_resampled() -> None:
    code = encode(np.ones((4, 6), np.uint8))
    with pytest.raises(RLEError, match="4x6"):
        resample_codes([code], np.arange(2), np.arange(2), (4, 5))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (7, 8), (90, 70)])
@pytest.mark.parametrize("fill", ["empty", "full", "first", "last", "chequered", "random"])
def test_special_masks(shape: tuple[int, int], fill: str) -> None:
    mask = np.zeros(shape, np.uint8)
    rows, columns = np.indices(shape)
    if fill == "full":
        mask[:] = 1
    elif fill == "first":
        mask[0, 0] = 1
    elif fill == "last":
        mask[-1, -1] = 1
    elif fill == "chequered":
        mask[:] = (rows + columns) % 2
    elif fill == "random":
        mask = random_masks(3, 1, *shape)[0]
    for code in (encode(mask), {"size": list(shape), "counts": uncompressed_counts(mask)}):
        np.testing.assert_array_equal(decode_all([code], *shape)[0], mask)


@given(masks=masks_of_one_size, data=st.data())
def test_kinds_of_counts_mix_in_one_image(masks: NDArray[np.uint8], data: st.DataObject) -> None:
    rles = []
    for mask in masks:
        kind = data.draw(st.sampled_from(["text", "bytes", "list", "tuple"]))
        code = encode(mask)
        if kind == "bytes":
            code["counts"] = code["counts"].encode()
        elif kind in ("list", "tuple"):
            counts = uncompressed_counts(mask)
            code["counts"] = counts if kind == "list" else tuple(counts)
        rles.append(code)
    np.testing.assert_array_equal(decode_all(rles, *masks.shape[1:]), masks)


@given(masks=masks_of_one_size, text=st.text(st.characters(max_codepoint=200), max_size=9))
def test_together_masks_are_read_as_each_alone(masks: NDArray[np.uint8], text: str) -> None:
    height, width = masks.shape[1:]
    codes = [*map(encode, masks), {"size": [height, width], "counts": text}]
    try:
        alone = np.concatenate([decode_all([code], height, width) for code in codes])
    except RLEError as error:
        problem = str(error).replace("mask 0", f"mask {len(masks)}")
        with pytest.raises(RLEError) as caught:
            decode_all(codes, height, width)
        assert str(caught.value) == problem
    else:
        np.testing.assert_array_equal(decode_all(codes, height, width), alone)


@given(masks=masks_of_one_size, data=st.data())
def test_empty_runs_change_nothing(masks: NDArray[np.uint8], data: st.DataObject) -> None:
    counts = uncompressed_counts(masks[0])
    position = data.draw(st.integers(0, len(counts)))
    counts[position:position] = [0, 0]
    code = {"size": list(masks.shape[1:]), "counts": counts}
    np.testing.assert_array_equal(decode_all([code], *masks.shape[1:])[0], masks[0])


@settings(max_examples=500)
@given(text=st.text(alphabet=[chr(c) for c in range(48, 112)], max_size=12), side=sides)
def test_any_text_is_read_as_pycocotools_reads_it_or_refused(text: str, side: int) -> None:
    code = {"size": [side, side], "counts": text}
    try:
        counts = read_slowly(text)
    except IndexError:
        counts = []
    is_mask = bool(counts) and min(counts) >= 0 and sum(counts) == side * side
    try:
        result = decode_all([code], side, side)[0]
    except RLEError:
        # Seven groups are enough for any count: longer ones only spell out leading zeros.
        assert not is_mask or len(text) > 7
        return
    assert is_mask
    expected = coco_mask.decode({"size": [side, side], "counts": text.encode()})
    np.testing.assert_array_equal(result, expected)


@settings(max_examples=300)
@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    damage=st.binary(max_size=3),
    position=st.integers(0, 20),
)
def test_damaged_bytes_never_crash(counts: list[int], damage: bytes, position: int) -> None:
    total = max(1, sum(counts))
    text = coco_mask.frPyObjects({"size": [1, total], "counts": counts}, 1, total)["counts"]
    damaged = text[:position] + damage + text[position + 1 :]
    try:
        result = decode_all([{"size": [1, total], "counts": damaged}], 1, total)
    except RLEError:
        return
    expected = coco_mask.decode({"size": [1, total], "counts": damaged})
    np.testing.assert_array_equal(result[0], expected)


GOOD = {"size": [2, 3], "counts": [1, 2, 3]}


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ({"size": [3, 2], "counts": [1, 2, 3]}, "mask 1 is for 3x2 pixels"),
        ({"size": [10**9, 10**9], "counts": "0"}, "mask 1 is for 1000000000x1000000000"),
        ({"size": [2], "counts": [6]}, r"mask 1 is .*\[2\].* expected"),
        ({"size": [2.0, 3.0], "counts": [6]}, "mask 1 is .* expected"),
        ({"size": "23", "counts": [6]}, "mask 1 is .*'23'.* expected"),
        ({"size": [2, 3]}, "mask 1 is .* expected .*counts"),
        ({"counts": [6]}, "mask 1 is .* expected .*counts"),
        ("text", "mask 1 is .* expected .*counts"),
        ({"size": [2, 3], "counts": []}, "mask 1 has no counts"),
        ({"size": [2, 3], "counts": ""}, "mask 1 has no counts"),
        ({"size": [2, 3], "counts": None}, "mask 1 has counts of type NoneType"),
        ({"size": [2, 3], "counts": [5]}, "mask 1 covers 5 pixels; expected exactly 6"),
        ({"size": [2, 3], "counts": [5, 2]}, "mask 1 covers 7 pixels"),
        ({"size": [2, 3], "counts": [7]}, "mask 1 has a count above its 6 pixels"),
        ({"size": [2, 3], "counts": [8, -2]}, "mask 1 has a negative count"),
        ({"size": [2, 3], "counts": [2**63, 1]}, "mask 1 has the count 9223372036854775808"),
        ({"size": [2, 3], "counts": [2**64 + 6]}, "mask 1 has the count"),
        # Sums that would wrap around to 6 in 64 bits.
        ({"size": [2, 3], "counts": [2**62, 2**62, 2**62, 2**62, 6]}, "above its 6 pixels"),
        ({"size": [2, 3], "counts": [6.0]}, "mask 1 has the count 6.0"),
        ({"size": [2, 3], "counts": ["6"]}, "mask 1 has the count '6'"),
        ({"size": [2, 3], "counts": [None]}, "mask 1 has the count None"),
        ({"size": [2, 3], "counts": "6\u0661"}, "mask 1 has a character outside"),
        ({"size": [2, 3], "counts": "6 "}, "mask 1 has a character outside"),
        ({"size": [2, 3], "counts": b"6\xff"}, "mask 1 has a character outside"),
        ({"size": [2, 3], "counts": "6p"}, "mask 1 has a character outside"),
        ({"size": [2, 3], "counts": "6o"}, "mask 1 is truncated within a count"),
        ({"size": [2, 3], "counts": "5"}, "mask 1 covers 5 pixels"),
        ({"size": [2, 3], "counts": "oooooooo0"}, "mask 1 has a count above 32 bits"),
        ({"size": [2, 3], "counts": "P" * 64 + "0"}, "mask 1 has a count above 32 bits"),
    ],
)
def test_what_is_no_mask_is_refused_by_its_number(code: Any, problem: str) -> None:
    compressed = {"size": [2, 3], "counts": "6"}
    with pytest.raises(RLEError, match=problem):
        sample_masks([GOOD, code, compressed], [0], [0], (2, 3))


def test_huge_sizes_are_refused_before_anything_is_allocated() -> None:
    code = {"size": [10**9, 10**9], "counts": [10**18]}
    tracemalloc.start()
    with pytest.raises(RLEError, match="expected sides of 1 to 65535"):
        sample_masks([code], [0], [0])
    with pytest.raises(RLEError, match="expected sides of 1 to 65535"):
        sample_masks([{"size": [0, 5], "counts": [0]}], [], [])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_the_largest_size_is_read() -> None:
    side = 65_535
    code = {"size": [side, side], "counts": [side * side - 1, 1]}
    values = sample_masks([code], [0, side - 1], [side - 1, 0])
    assert values.tolist() == [[[False, False], [True, False]]]


def test_no_masks_give_an_empty_result() -> None:
    assert sample_masks([], [0, 1], [0, 1, 2], (5, 5)).shape == (0, 2, 3)
    with pytest.raises(ValueError, match="got no mask"):
        sample_masks([], [0], [0])


@pytest.mark.parametrize(
    ("rows", "columns"), [([-1], [0]), ([2], [0]), ([0], [3]), ([0.5], [0]), ([[0]], [0])]
)
def test_rows_and_columns_outside_are_refused(rows: Any, columns: Any) -> None:
    with pytest.raises(ValueError, match="rows|columns"):
        sample_masks([GOOD], rows, columns)
