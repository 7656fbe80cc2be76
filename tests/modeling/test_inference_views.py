import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from pixelclip.modeling.inference_views import (
    InferenceMode,
    Region,
    View,
    batch_by_size,
    make_views,
    merge_views,
    place_windows,
)


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    window=st.integers(1, 60),
    stride=st.integers(1, 60),
)
def test_windows_cover_every_pixel_and_stay_inside(height, width, window, stride):
    stride = min(stride, window)
    seen = torch.zeros(height, width, dtype=torch.long)
    windows = place_windows((height, width), window, stride)
    for top, left, bottom, right in windows:
        assert (bottom - top, right - left) == (min(window, height), min(window, width))
        assert top >= 0 and left >= 0 and bottom <= height and right <= width
        seen[top:bottom, left:right] += 1
    assert seen.min() >= 1
    assert len(set(windows)) == len(windows)


def test_whole_view_is_the_resized_image():
    image = torch.randn(3, 30, 50)
    (view,) = make_views(image, (60, 100), InferenceMode(), (32, 32), 16)
    expected = F.interpolate(image[None], (32, 32), mode="bilinear", align_corners=False)[0]
    assert torch.equal(view.pixels, expected)
    assert view.region == Region(0, 0, 60, 100)


@pytest.mark.parametrize(
    ("size", "expected"), [((30, 60), (32, 64)), ((90, 31), (96, 32)), ((40, 40), (32, 32))]
)
def test_keeping_the_aspect_ratio_fixes_the_short_side(size, expected):
    mode = InferenceMode("keep_aspect")
    (view,) = make_views(torch.randn(3, *size), size, mode, (32, 32), 16)
    assert tuple(view.pixels.shape[1:]) == expected


def test_flipped_views_are_mirrored():
    one, mirrored = make_views(
        torch.randn(3, 32, 32), (32, 32), InferenceMode(flip=True), (32, 32), 16
    )
    assert torch.equal(mirrored.pixels, one.pixels.flip(-1))
    assert (one.is_flipped, mirrored.is_flipped) == (False, True)


def test_merging_averages_where_views_overlap():
    views = [
        View(torch.zeros(3, 1, 1), Region(0, 0, 4, 6), False),
        View(torch.zeros(3, 1, 1), Region(0, 4, 4, 8), False),
    ]
    merged = merge_views(views, [torch.full((2, 3, 3), 1.0), torch.full((2, 3, 3), 3.0)], (4, 8))
    expected = torch.tensor([1.0] * 4 + [2.0] * 2 + [3.0] * 2).expand(2, 4, 8)
    torch.testing.assert_close(merged, expected)


def test_merging_turns_mirrored_scores_back():
    scores = torch.randn(2, 5, 7)
    views = [View(torch.zeros(3, 1, 1), Region(0, 0, 20, 28), flipped) for flipped in (False, True)]
    merged = merge_views(views, [scores, scores.flip(-1)], (20, 28))
    expected = F.interpolate(scores[None], (20, 28), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(merged, expected)


@pytest.mark.parametrize("output", [(1, 1), (3, 200), (77, 5)])
def test_any_output_size_is_filled(output):
    mode = InferenceMode("sliding_window", window_size=16, window_stride=7)
    views = make_views(torch.randn(3, 60, 50), output, mode, (32, 32), 16)
    merged = merge_views(views, [torch.ones(2, 4, 4)] * len(views), output)
    torch.testing.assert_close(merged, torch.ones(2, *output))


def test_batches_hold_one_size_each():
    views = [
        View(torch.zeros(3, side, 16), Region(0, 0, 1, 1), False) for side in (16, 32, 16, 16, 32)
    ]
    assert batch_by_size(views, 2) == [[0, 2], [3], [1, 4]]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"name": "hole"}, "'hole'.*whole, keep_aspect, sliding_window"),
        ({"window_size": 10, "window_stride": 11}, "WINDOW_STRIDE is 11.*10"),
        ({"window_size": 10, "window_stride": 0}, "WINDOW_STRIDE is 0"),
    ],
)
def test_bad_modes_are_refused(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        InferenceMode(**arguments)
