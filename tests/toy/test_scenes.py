from collections import Counter

import numpy as np
import pytest

from pixelclip.data.vocabularies import get_vocabulary
from pixelclip.toy.scenes import CLASS_NAMES, make_scene
from pixelclip.toy.textures import STUFF_NAMES
from pixelclip.toy.things import THING_NAMES


@pytest.fixture(scope="module")
def scenes():
    return [make_scene(3, index) for index in range(150)]


def test_a_scene_follows_from_seed_and_number(scenes):
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


def test_scenes_have_several_kinds_of_stuff_and_things(scenes):
    for scene in scenes:
        names = [layer.name for layer in scene.layers]
        assert 2 <= sum(name in STUFF_NAMES for name in names) <= 4
        assert 1 <= sum(name in THING_NAMES for name in names) <= 5


def test_every_class_occurs_fairly_often(scenes):
    counts = Counter(i for scene in scenes for i in np.unique(scene.labels).tolist())
    assert set(counts) == set(range(len(CLASS_NAMES)))
    # About a third of the scenes shows a kind of stuff, and about a fifth a thing.
    assert min(counts[i] for i in range(8)) > 150 * 0.2
    assert min(counts[i] for i in range(8, 20)) > 150 * 0.1


def test_pixels_differ_where_labels_change(scenes):
    """Borders of labels lie on borders in the picture, more than elsewhere."""
    ratios = []
    for scene in scenes[:40]:
        steps = np.abs(np.diff(scene.pixels.astype(float), axis=1)).sum(axis=2)
        is_border = np.diff(scene.labels.astype(int), axis=1) != 0
        ratios.append(steps[is_border].mean() / steps[~is_border].mean())
    assert np.median(ratios) > 1.5


def test_the_vocabulary_is_registered():
    assert get_vocabulary("toy_scenes_20") == CLASS_NAMES
    assert len(CLASS_NAMES) == len(set(CLASS_NAMES)) == 20
