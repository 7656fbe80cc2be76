from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from pixelclip.modeling import inference_views
from pixelclip.modeling.inference_masks import InferenceMasks
from pixelclip.modeling.inference_views import (
    InferenceMode,
    InferenceViews,
    Region,
    View,
    find_best_classes,
    make_views,
    merge_views,
    place_windows,
    pool_scores,
    resize_patch,
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


def test_a_flipped_view_is_averaged_with_the_view_itself():
    encoder = torch.nn.Conv2d(3, 4, 8, stride=8)

    def score(mode, pixels):
        views = InferenceViews(mode, (32, 32), (4, 4))
        classifier = SimpleNamespace(scores=lambda features: features)
        with torch.no_grad():
            return views.score(pixels, lambda x: encoder(x).permute(0, 2, 3, 1), classifier)

    pixels = torch.randn(2, 3, 32, 32)
    both = score(InferenceMode(), pixels), score(InferenceMode(), pixels.flip(-1)).flip(-1)
    expected = (both[0] + both[1]) / 2
    torch.testing.assert_close(score(InferenceMode(flip=True), pixels), expected)
    assert not torch.allclose(expected, both[0])


def test_merging_averages_where_views_overlap():
    regions = [Region(0, 0, 4, 6), Region(0, 4, 4, 8)]
    scores = [torch.full((2, 3, 3), 1.0), torch.full((2, 3, 3), 3.0)]
    expected = torch.tensor([1.0] * 4 + [2.0] * 2 + [3.0] * 2).expand(2, 4, 8)
    torch.testing.assert_close(merge_views(regions, scores, (4, 8)), expected)


def test_a_single_view_takes_no_second_map_of_all_classes(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "new_zeros", lambda *_: pytest.fail("for a mean of one"))
    merge_views([Region(0, 0, 4, 6)], [torch.randn(2, 3, 3)], (4, 6))


@pytest.mark.parametrize("output", [(1, 1), (3, 200), (77, 5)])
def test_any_output_size_is_filled(output):
    mode = InferenceMode("sliding_window", window_size=16, window_stride=7)
    views = make_views(torch.randn(3, 60, 50), output, mode, (32, 32), 16)
    regions = [view.region for view in views]
    merged = merge_views(regions, [torch.ones(2, 4, 4)] * len(views), output)
    torch.testing.assert_close(merged, torch.ones(2, *output))


def test_views_of_equal_size_are_scored_together_and_keep_their_order(monkeypatch):
    monkeypatch.setattr(inference_views, "_VIEWS_PER_BATCH", 2)
    sides = (16, 32, 16, 16, 32)
    views = [
        View(torch.full((3, side, 16), number), Region(0, 0, 1, 1))
        for number, side in enumerate(sides)
    ]
    batches = []

    def score(pixels):
        batches.append((pixels.shape[2], len(pixels)))
        return pixels[:, :1]

    scores = inference_views._score_by_size(views, score)
    assert sorted(batches) == [(16, 1), (16, 2), (32, 2)]
    assert [view_scores.unique().tolist() for view_scores in scores] == [[n] for n in range(5)]


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
    # As the model makes them: the classes are neighbors in memory.
    scores = [
        (spread * torch.randn(13, 11, classes, generator=generator)).permute(2, 0, 1) for _ in views
    ]
    return [view.region for view in views], scores, output


MODES = [
    InferenceMode(),
    InferenceMode("keep_aspect"),
    InferenceMode("sliding_window", window_size=32, window_stride=20),
    InferenceMode("sliding_window", window_size=40, window_stride=40),
]


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: f"{mode.name}-{mode.window_size}")
@pytest.mark.parametrize("classes", [1, 2, 3, 5, 30])
def test_labels_are_those_of_all_scores(mode, classes):
    regions, scores, output = make_scored_views(mode, classes)
    merged = merge_views(regions, scores, output)
    assert torch.equal(find_best_classes(regions, scores, output)[0], merged.argmax(dim=0))
    labels, best = find_best_classes(regions, scores, output)
    assert torch.equal(labels, merged.argmax(dim=0))
    assert torch.equal(best, merged.amax(dim=0))


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: f"{mode.name}-{mode.window_size}")
def test_of_equal_classes_the_first_one_wins(mode):
    regions, scores, output = make_scored_views(mode, 6)
    doubled = [view_scores[[0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 5]] for view_scores in scores]
    labels = find_best_classes(regions, doubled, output)[0]
    assert torch.equal(labels, find_best_classes(regions, scores, output)[0])
    assert torch.equal(labels, merge_views(regions, doubled, output).argmax(dim=0))
    flat = [torch.zeros_like(view_scores) for view_scores in scores]
    assert not find_best_classes(regions, flat, output)[0].any()


@settings(max_examples=60)
@given(
    st.integers(1, 40), st.integers(1, 300), st.integers(1, 300), st.integers(0, 99), st.booleans()
)
def test_labels_are_those_of_all_scores_at_any_size(classes, height, width, seed, is_rounded):
    mode = InferenceMode()
    regions, scores, output = make_scored_views(mode, classes, output=(height, width), seed=seed)
    if is_rounded:  # many ties
        scores = [(view_scores * 20).round() for view_scores in scores]
    expected = merge_views(regions, scores, output).argmax(dim=0)
    assert torch.equal(find_best_classes(regions, scores, output)[0], expected)


def test_nan_scores_are_labeled_as_by_argmax():
    regions, scores, output = make_scored_views(InferenceMode(), 5)
    scores[0][3, 4, 5] = float("nan")
    expected = merge_views(regions, scores, output).argmax(dim=0)
    assert (expected == 3).any()
    assert torch.equal(find_best_classes(regions, scores, output)[0], expected)


def test_few_classes_are_computed_where_few_can_win(monkeypatch):
    regions, scores, output = make_scored_views(InferenceMode(), 100)
    scores[0][:90] -= 1.0
    computed = []
    resize = inference_views.resize_patch

    def resize_and_count(maps, size, patch):
        computed.append(len(maps))
        return resize(maps, size, patch)

    monkeypatch.setattr(inference_views, "resize_patch", resize_and_count)
    find_best_classes(regions, scores, output)[0]
    assert len(computed) == 4
    assert max(computed) <= 10


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
def test_nothing_outside_the__matters(data, length, new_length):
    start = data.draw(st.integers(0, new_length - 1))
    stop = data.draw(st.integers(start + 1, new_length))
    before, after, _ = inference_views._neighbors(length, new_length, start, stop)
    first, last = before[0], after[-1] + 1
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


SIZE = (24, 36)


def make_masks(count=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, 4, 6, generator=generator) < 0.4
    masks[:, 1, 2] = True
    masks = masks.repeat_interleave(6, 1).repeat_interleave(6, 2)  # (count, 24, 36)
    index_map = torch.full(SIZE, -1)
    for index in masks.sum((1, 2)).argsort(descending=True).tolist():
        index_map[masks[index]] = index
    return InferenceMasks(masks, index_map)


def make_scored(mode, num_classes=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(3, *SIZE, generator=generator)
    views = make_views(image, SIZE, mode, (16, 16), 4)
    scores = [torch.randn(num_classes, 5, 5, generator=generator) for _ in views]
    return [view.region for view in views], scores


SMOOTHING_MODES = [
    InferenceMode(),
    InferenceMode("sliding_window", window_size=16, window_stride=8),
]


@pytest.mark.parametrize("mode", SMOOTHING_MODES, ids=str)
def test_each_pixel_of_a_mask_has_its_mean_and_the_others_their_own(mode):
    regions, scores = make_scored(mode)
    smoothing = make_masks()
    own = merge_views(regions, scores, SIZE)
    smoothed = merge_views(regions, scores, SIZE, smoothing)
    expected = own.clone()
    for index, mask in enumerate(smoothing.masks):
        mean = own[:, mask].mean(dim=1)
        expected[:, smoothing.index_map == index] = mean[:, None]
    assert (smoothing.index_map == -1).any()
    torch.testing.assert_close(smoothed, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mode", SMOOTHING_MODES, ids=str)
def test_labels_are_those_of_the_merged_scores(mode):
    regions, scores = make_scored(mode, seed=3)
    smoothing = make_masks(seed=3)
    values, classes = merge_views(regions, scores, SIZE, smoothing).max(dim=0)
    labels, best = find_best_classes(regions, scores, SIZE, smoothing)
    assert torch.equal(labels, classes)
    assert torch.equal(best, values)
    assert not torch.equal(labels, find_best_classes(regions, scores, SIZE)[0])


def test_without_any_mask_nothing_changes():
    regions, scores = make_scored(InferenceMode())
    empty = InferenceMasks(torch.zeros(0, 8, 8, dtype=torch.bool), torch.full((24, 36), -1))
    for function in (merge_views, lambda *scored: find_best_classes(*scored)[0]):
        assert torch.equal(
            function(regions, scores, SIZE, empty), function(regions, scores, SIZE)
        )


def test_masks_and_index_maps_of_other_sizes_than_the_output():
    _, scores = make_scored(InferenceMode())
    smoothing = make_masks()
    labels, _ = find_best_classes([Region(0, 0, 48, 72)], scores, (48, 72), smoothing)
    assert labels.shape == (48, 72)
    index_map = inference_views._resize_nearest(smoothing.index_map, (48, 72))
    expected = F.interpolate(smoothing.index_map[None, None].float(), (48, 72), mode="nearest")
    assert torch.equal(index_map, expected[0, 0].long())
    for index in index_map.unique():
        if index >= 0:
            assert len(labels[index_map == index].unique()) == 1


def test_a_uniform_map_keeps_its_value():
    masks = make_masks().masks
    regions = [Region(0, 0, 24, 20), Region(0, 10, 24, 36)]
    scores = [torch.full((3, 4, 4), 0.25), torch.full((3, 6, 5), 0.25)]
    pooled = pool_scores(scores, regions, SIZE, masks)
    torch.testing.assert_close(pooled, torch.full((5, 3), 0.25))
