from collections import Counter

import numpy as np
import pytest

from pixelclip.toy.objects import THING_NAMES
from pixelclip.toy.scenes import CLASS_NAMES, make_masks, make_scene
from pixelclip.toy.textures import STUFF_NAMES


@pytest.fixture(scope="module")
def scenes():
    return [make_scene(3, index) for index in range(150)]


def test_a_scene_follows_from_seed_and_index(scenes):
    again = make_scene(3, 40)
    assert np.array_equal(again.pixels, scenes[40].pixels)
    assert np.array_equal(again.labels, scenes[40].labels)
    for other in (make_scene(3, 41), make_scene(4, 40)):
        assert not np.array_equal(other.pixels, scenes[40].pixels)


def test_labels_are_the_layers_that_are_seen(scenes):
    for scene in scenes:
        assert scene.pixels.shape == (96, 96, 3)
        assert (scene.pixels.dtype, scene.labels.dtype) == (np.uint8, np.uint8)
        seen = np.zeros((96, 96), int)
        for layer in scene.layers:
            assert (scene.labels[layer.mask] == CLASS_NAMES.index(layer.name)).all()
            seen += layer.mask
        assert (seen == 1).all()


def test_scenes_have_several_kinds_of_stuff_and_objects(scenes):
    for scene in scenes:
        names = [layer.name for layer in scene.layers]
        assert 2 <= sum(name in STUFF_NAMES for name in names) <= 4
        assert 1 <= sum(name in THING_NAMES for name in names) <= 5


def test_every_class_occurs_fairly_often(scenes):
    counts = Counter(i for scene in scenes for i in np.unique(scene.labels).tolist())
    assert set(counts) == set(range(len(CLASS_NAMES)))
    # About a third of the scenes shows a kind of stuff, and about a fifth each object.
    assert min(counts[i] for i in range(8)) > 150 * 0.2
    assert min(counts[i] for i in range(8, 20)) > 150 * 0.1


def test_pixels_differ_where_labels_change(scenes):
    """Pixels change more at the borders of labels than elsewhere."""
    ratios = []
    for scene in scenes[:40]:
        steps = np.abs(np.diff(scene.pixels.astype(float), axis=1)).sum(axis=2)
        is_border = np.diff(scene.labels.astype(int), axis=1) != 0
        ratios.append(steps[is_border].mean() / steps[~is_border].mean())
    assert np.median(ratios) > 1.5


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


def test_masks_follow_from_seed_and_index(segmented):
    scene, masks = segmented[5]
    again = make_masks(8, 5, make_scene(8, 5))
    assert np.array_equal(np.stack(again), np.stack(masks))
    other = make_masks(8, 6, scene)
    assert len(other) != len(masks) or not np.array_equal(np.stack(other), np.stack(masks))


def test_the_scene_is_left_unchanged():
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
