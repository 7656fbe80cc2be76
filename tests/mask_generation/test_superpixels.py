import numpy as np
import pytest

from pixelclip.mask_generation.superpixels import SuperpixelGenerator, merge_superpixels

from .drawings import best_overlaps, draw_regions


def find(image):
    return list(SuperpixelGenerator().generate(image))


def draw_tiles(seed):
    """(60, 80, 3): tiles of 10x10 pixels in colors more and less alike."""
    colors = np.random.default_rng(seed).integers(60, 200, (6, 8, 3), dtype=np.uint8)
    return colors.repeat(10, axis=0).repeat(10, axis=1)


@pytest.mark.parametrize("size", [(120, 160), (700, 900)])
def test_the_regions_of_a_drawn_image_are_found(size):
    image, true = draw_regions(*size)
    masks = [found.mask for found in find(image)]
    assert all(mask.dtype == np.bool_ and mask.shape == size and mask.any() for mask in masks)
    assert best_overlaps(masks, true).min() > 0.9
    assert np.any(masks, axis=0).mean() > 0.99


def test_masks_are_distinct_and_scored_by_how_long_they_stand():
    found = find(draw_tiles(1))
    assert len({one.mask.tobytes() for one in found}) == len(found) > 10
    scores = {one.stability_score for one in found}
    assert min(scores) > 0
    assert max(scores) <= 1
    assert len(scores) > 2
    assert {one.predicted_iou for one in found} == {1.0}


def test_each_level_merges_regions_of_the_one_before():
    levels = list(merge_superpixels(draw_tiles(2)))
    counts = [len(np.unique(level)) for level in levels]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]
    for finer, coarser in zip(levels, levels[1:], strict=False):
        pairs = np.unique(np.stack([finer.ravel(), coarser.ravel()]), axis=1)
        assert len(np.unique(pairs[0])) == pairs.shape[1], "a region lies in one region only"


def test_the_same_image_gets_the_same_masks():
    image, _ = draw_regions()
    first, second = find(image), find(image)
    assert [one.mask.tobytes() for one in first] == [one.mask.tobytes() for one in second]


@pytest.mark.parametrize("size", [(1, 1), (1, 600), (3, 2), (500, 1)])
def test_the_smallest_images(size):
    flat = find(np.full((*size, 3), 90, np.uint8))
    assert len(flat) == 1
    assert flat[0].mask.shape == size
    assert flat[0].mask.all()
    assert flat[0].stability_score == 1
    for found in find(np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)):
        assert found.mask.shape == size
        assert found.mask.any()
