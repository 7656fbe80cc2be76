import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from pixelclip.modeling import inference_views
from pixelclip.modeling.bilinear_patch import Region
from pixelclip.modeling.inference_views import (
    InferenceMode,
    View,
    batch_by_size,
    find_best_classes,
    label_views,
    make_views,
    merge_views,
    place_windows,
)


@settings(max_examples=60)
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


def make_scored_views(mode, classes, size=(90, 70), output=(200, 150), seed=0, spread=0.05):
    generator = torch.Generator().manual_seed(seed)
    views = make_views(torch.randn(3, *size), output, mode, (32, 32), 16)
    # As the model makes them: the classes are neighbours in memory.
    scores = [
        (spread * torch.randn(13, 11, classes, generator=generator)).permute(2, 0, 1) for _ in views
    ]
    return views, scores, output


MODES = [
    InferenceMode(),
    InferenceMode(flip=True),
    InferenceMode("keep_aspect", flip=True),
    InferenceMode("sliding_window", window_size=32, window_stride=20),
    InferenceMode("sliding_window", window_size=40, window_stride=40, flip=True),
]


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: f"{mode.name}-{mode.flip}")
@pytest.mark.parametrize("classes", [1, 2, 3, 5, 30])
def test_labels_are_those_of_all_scores(mode, classes):
    views, scores, output = make_scored_views(mode, classes)
    merged = merge_views(views, scores, output)
    assert torch.equal(label_views(views, scores, output), merged.argmax(dim=0))
    labels, best = find_best_classes(views, scores, output)
    assert torch.equal(labels, merged.argmax(dim=0))
    assert torch.equal(best, merged.amax(dim=0))


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: f"{mode.name}-{mode.flip}")
def test_of_equal_classes_the_first_one_wins(mode):
    views, scores, output = make_scored_views(mode, 6)
    doubled = [of_view[[0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 5]] for of_view in scores]
    labels = label_views(views, doubled, output)
    assert torch.equal(labels, label_views(views, scores, output))
    assert torch.equal(labels, merge_views(views, doubled, output).argmax(dim=0))
    flat = [torch.zeros_like(of_view) for of_view in scores]
    assert not label_views(views, flat, output).any()


@settings(max_examples=60)
@given(
    st.integers(1, 40), st.integers(1, 300), st.integers(1, 300), st.integers(0, 99), st.booleans()
)
def test_labels_are_those_of_all_scores_at_any_size(classes, height, width, seed, is_rounded):
    mode = InferenceMode(flip=bool(seed % 2))
    views, scores, output = make_scored_views(mode, classes, output=(height, width), seed=seed)
    if is_rounded:  # many ties
        scores = [(of_view * 20).round() for of_view in scores]
    expected = merge_views(views, scores, output).argmax(dim=0)
    assert torch.equal(label_views(views, scores, output), expected)


def test_scores_that_are_no_numbers_are_labelled_as_by_argmax():
    views, scores, output = make_scored_views(InferenceMode(), 5)
    scores[0][3, 4, 5] = float("nan")
    expected = merge_views(views, scores, output).argmax(dim=0)
    assert (expected == 3).any()
    assert torch.equal(label_views(views, scores, output), expected)


def test_few_classes_are_computed_where_few_can_win(monkeypatch):
    views, scores, output = make_scored_views(InferenceMode(), 100)
    scores[0][:90] -= 1.0
    computed = []
    resize = inference_views.resize_patch

    def resize_and_count(maps, size, patch):
        computed.append(len(maps))
        return resize(maps, size, patch)

    monkeypatch.setattr(inference_views, "resize_patch", resize_and_count)
    label_views(views, scores, output)
    assert len(computed) == 4
    assert max(computed) <= 10
