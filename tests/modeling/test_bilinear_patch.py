import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from pixelclip.modeling.bilinear_patch import Region, resize_patch, source_range

SIDES = st.integers(1, 50)


@settings(max_examples=80)
@given(SIDES, SIDES, st.integers(1, 120), st.integers(1, 120), st.integers(1, 9))
def test_equals_torch_but_for_rounding(h, w, height, width, channels):
    maps = torch.randn(channels, h, w)
    expected = F.interpolate(maps[None], (height, width), mode="bilinear", align_corners=False)[0]
    result = resize_patch(maps, (height, width), Region(0, 0, height, width))
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=2e-5)


@settings(max_examples=80)
@given(st.data(), SIDES, SIDES, SIDES, SIDES)
def test_a_patch_is_the_same_part_of_the_whole_to_the_last_bit(data, h, w, height, width):
    maps = torch.randn(7, h, w)
    if data.draw(st.booleans()):
        maps = maps.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    whole = resize_patch(maps, (height, width), Region(0, 0, height, width))
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom = data.draw(st.integers(top + 1, height))
    right = data.draw(st.integers(left + 1, width))
    chosen = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=9))
    part = resize_patch(maps[chosen], (height, width), Region(top, left, bottom, right))
    assert torch.equal(part, whole[chosen][:, top:bottom, left:right])


@settings(max_examples=80)
@given(st.data(), SIDES, SIDES)
def test_nothing_outside_the_source_range_matters(data, length, new_length):
    start = data.draw(st.integers(0, new_length - 1))
    stop = data.draw(st.integers(start + 1, new_length))
    first, last = source_range(length, new_length, start, stop)
    maps = torch.full((1, length, 3), float("nan"))
    maps[:, first:last] = torch.randn(last - first, 3)
    patch = resize_patch(maps, (new_length, 5), Region(start, 0, stop, 5))
    assert not patch.isnan().any()
    assert maps[:, first:last].min() - 1e-5 <= patch.min()
    assert patch.max() <= maps[:, first:last].max() + 1e-5


@pytest.mark.parametrize(
    ("one", "other", "size"),
    [
        (Region(0, 0, 4, 4), Region(2, 1, 9, 3), (2, 2)),
        (Region(0, 0, 4, 4), Region(4, 0, 8, 4), (0, 4)),
        (Region(0, 0, 4, 4), Region(7, 7, 8, 8), (0, 0)),
    ],
)
def test_regions_intersect(one, other, size):
    assert one.intersect(other).size == other.intersect(one).size == size


def test_regions_are_counted_from_another_one():
    assert Region(5, 6, 7, 9).relative_to(Region(4, 4, 9, 9)) == Region(1, 2, 3, 5)
