import pytest
import torch
from torch.nn import functional as F

from pixelclip.modeling.bilinear_patch import Region
from pixelclip.modeling.inference_views import (
    InferenceMode,
    View,
    find_best_classes,
    label_views,
    make_views,
    merge_views,
)
from pixelclip.modeling.mask_smoothing import SmoothingMasks, pool_scores, resize_owner

SIZE = (24, 36)


def make_masks(count=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, 4, 6, generator=generator) < 0.4
    masks[:, 1, 2] = True
    masks = masks.repeat_interleave(6, 1).repeat_interleave(6, 2)  # (count, 24, 36)
    owner = torch.full(SIZE, -1)
    for index in masks.sum((1, 2)).argsort(descending=True).tolist():
        owner[masks[index]] = index
    return SmoothingMasks(masks, owner)


def make_scored(mode, num_classes=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(3, *SIZE, generator=generator)
    views = make_views(image, SIZE, mode, (16, 16), 4)
    scores = [torch.randn(num_classes, 5, 5, generator=generator) for _ in views]
    return views, scores


MODES = [
    InferenceMode(),
    InferenceMode(flip=True),
    InferenceMode("sliding_window", window_size=16, window_stride=8),
    InferenceMode("sliding_window", window_size=16, window_stride=8, flip=True),
]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_each_owned_pixel_has_the_mean_of_its_mask_and_the_others_their_own(mode):
    views, scores = make_scored(mode)
    smoothing = make_masks()
    own = merge_views(views, scores, SIZE)
    smoothed = merge_views(views, scores, SIZE, smoothing)
    expected = own.clone()
    for index, mask in enumerate(smoothing.masks):
        mean = own[:, mask].mean(dim=1)
        expected[:, smoothing.owner == index] = mean[:, None]
    assert (smoothing.owner == -1).any()
    torch.testing.assert_close(smoothed, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_labels_are_those_of_the_merged_scores(mode):
    views, scores = make_scored(mode, seed=3)
    smoothing = make_masks(seed=3)
    values, classes = merge_views(views, scores, SIZE, smoothing).max(dim=0)
    labels, best = find_best_classes(views, scores, SIZE, smoothing)
    assert torch.equal(labels, classes)
    assert torch.equal(best, values)
    assert torch.equal(label_views(views, scores, SIZE, smoothing), labels)
    assert not torch.equal(labels, label_views(views, scores, SIZE))


def test_without_any_mask_nothing_changes():
    views, scores = make_scored(InferenceMode())
    empty = SmoothingMasks(torch.zeros(0, 8, 8, dtype=torch.bool), torch.full((24, 36), -1))
    assert torch.equal(merge_views(views, scores, SIZE, empty), merge_views(views, scores, SIZE))
    assert torch.equal(label_views(views, scores, SIZE, empty), label_views(views, scores, SIZE))


def test_masks_and_owners_of_other_sizes_than_the_output():
    views, scores = make_scored(InferenceMode())
    smoothing = make_masks()
    large = View(views[0].pixels, Region(0, 0, 48, 72), is_flipped=False)
    labels = label_views([large], scores, (48, 72), smoothing)
    assert labels.shape == (48, 72)
    owner = resize_owner(smoothing.owner, (48, 72))
    expected = F.interpolate(smoothing.owner[None, None].float(), (48, 72), mode="nearest")
    assert torch.equal(owner, expected[0, 0].long())
    for index in owner.unique():
        if index >= 0:
            assert len(labels[owner == index].unique()) == 1


def test_a_uniform_map_keeps_its_value():
    masks = make_masks().masks
    regions = [Region(0, 0, 24, 20), Region(0, 10, 24, 36)]
    scores = [torch.full((3, 4, 4), 0.25), torch.full((3, 6, 5), 0.25)]
    pooled = pool_scores(scores, regions, SIZE, masks)
    torch.testing.assert_close(pooled, torch.full((5, 3), 0.25))
