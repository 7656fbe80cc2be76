import numpy as np
import pytest

from pixelclip.toy.sam_like_masks import make_masks
from pixelclip.toy.scenes import make_scene
from pixelclip.toy.textures import STUFF_NAMES


@pytest.fixture(scope="module")
def segmented():
    scenes = [make_scene(8, index) for index in range(40)]
    return [(scene, make_masks(8, index, scene)) for index, scene in enumerate(scenes)]


def test_masks_are_not_empty_and_of_the_scenes_size(segmented):
    for _, masks in segmented:
        assert masks
        for mask in masks:
            assert mask.dtype == np.bool_
            assert mask.shape == (96, 96)
            assert mask.sum() >= 12


def test_masks_follow_from_seed_and_number(segmented):
    scene, masks = segmented[5]
    again = make_masks(8, 5, make_scene(8, 5))
    assert np.array_equal(np.stack(again), np.stack(masks))
    other = make_masks(8, 6, scene)
    assert len(other) != len(masks) or not np.array_equal(np.stack(other), np.stack(masks))


def test_the_scene_is_left_as_it_was():
    scene, fresh = make_scene(8, 3), make_scene(8, 3)
    make_masks(8, 3, scene)
    for layer, expected in zip(scene.layers, fresh.layers, strict=True):
        assert np.array_equal(layer.mask, expected.mask)


def test_most_masks_show_one_class_but_are_not_its_whole_region(segmented):
    purities, is_whole = [], []
    for scene, masks in segmented:
        for mask in masks:
            counts = np.bincount(scene.labels[mask])
            purities.append(counts.max() / mask.sum())
            is_whole.append(np.array_equal(mask, scene.labels == counts.argmax()))
    assert np.mean(np.array(purities) > 0.8) > 0.85
    assert np.mean(is_whole) < 0.5, "parts, pieces and moved borders"


def test_some_parts_lie_inside_wholes_and_stuff_is_cut(segmented):
    nested = stuff_pieces = 0
    for scene, masks in segmented:
        sizes = [mask.sum() for mask in masks]
        nested += any(
            (a & b).sum() == sizes[i] < sizes[j]
            for i, a in enumerate(masks)
            for j, b in enumerate(masks)
        )
        is_stuff = scene.labels < len(STUFF_NAMES)
        stuff_pieces += sum(is_stuff[mask].mean() > 0.9 for mask in masks)
    assert nested > 20
    assert stuff_pieces / len(segmented) > 3
