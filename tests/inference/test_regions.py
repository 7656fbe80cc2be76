"""Regions are the connected parts of a label map, and their codes those of pycocotools."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from scipy import ndimage

from pixelclip.inference.regions import find_regions

NAMES = ["sky", "stone", "car"]


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 1), (5, 7), (24, 17)])
def test_regions_divide_the_image_into_connected_parts(size):
    generator = np.random.default_rng(0)
    labels, similarity = generator.integers(0, 3, size), generator.uniform(-1, 1, size)
    regions = find_regions(labels, similarity, NAMES)
    assert len(regions) == sum(ndimage.label(labels == index)[1] for index in range(3))
    assert (np.sum([region.mask for region in regions], axis=0) == 1).all()
    for region in regions:
        mask = region.mask
        assert (labels[mask] == region.index).all()
        assert region.name == NAMES[region.index]
        assert ndimage.label(mask)[1] == 1
        assert region.share == pytest.approx(mask.mean())
        assert region.similarity == pytest.approx(similarity[mask].mean())
        expected = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert region.rle == {**expected, "counts": expected["counts"].decode()}
    shares = [region.share for region in regions]
    assert shares == sorted(shares, reverse=True)


def test_pixels_that_only_touch_at_a_corner_are_two_regions():
    labels = np.array([[1, 0], [0, 1]])
    assert len(find_regions(labels, labels / 2, NAMES)) == 4
