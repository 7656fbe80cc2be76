"""A class has one color, which differs from those of others for every color vision."""

import numpy as np
import pytest
from skimage.color import rgb2hsv, rgb2lab

from pixelclip.data.vocabularies import get_vocabulary
from pixelclip.utils.class_colors import class_colors

# Linear RGB to what dichromats see of it (Vienot, Brettel and Mollon 1999), which is not the
# simulation that the colors were chosen with.
VISIONS = {
    "trichromat": np.eye(3),
    "protanope": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
    "deuteranope": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
}
WORDS = {
    "toy": "sky grass water sand brick wood stone snow "
    "house tree car fish boat bottle mushroom ladder flower lamp cup bird",
    "street": "sky road sidewalk car tree building person sign bicycle bus",
    "beach": "sky sea sand person boat rock umbrella dog palm towel",
    "room": "wall floor ceiling sofa table chair window lamp curtain plant",
    "food": "plate cup table pizza salad knife fork glass bread cheese",
    "farm": "grass sky tree cow sheep horse dog cat bird fence",
}


def smallest_distance(colors, vision="trichromat"):
    """The smallest distance in CIELAB of two of the colors, as a vision sees them."""
    linear = (colors / 255) ** 2.2 @ np.transpose(VISIONS[vision])
    lab = rgb2lab(linear.clip(0, 1) ** (1 / 2.2))
    distances = np.linalg.norm(lab[:, None] - lab, axis=-1)
    return distances[~np.eye(len(colors), dtype=bool)].min()


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("words", WORDS)
def test_everybody_can_tell_classes_apart(words, vision):
    assert smallest_distance(class_colors(WORDS[words].split()), vision) > 12


def test_known_words_have_the_expected_hues():
    names = ["sky", "grass", "water", "tree", "sand", "person", "wood"]
    hues = dict(zip(names, 360 * rgb2hsv(class_colors(names) / 255)[:, 0], strict=True))
    assert 195 < hues["sky"] < 215 and 200 < hues["water"] < 225
    assert 70 < hues["grass"] < 130 and 100 < hues["tree"] < 165
    assert 35 < hues["sand"] < 55 and 20 < hues["wood"] < 45
    assert 310 < hues["person"] < 345


@pytest.mark.parametrize("others", [[], ["cloudy sky", "sky-other"], ["sea", "car", "kite"]])
def test_the_sky_is_always_the_same_blue(others):
    assert class_colors([*others, "sky"])[-1].tolist() == [126, 184, 232]


def test_the_order_of_the_words_changes_no_color():
    names = WORDS["toy"].split()
    forward, backward = class_colors(names), class_colors(names[::-1])
    assert np.array_equal(forward, backward[::-1])


@pytest.mark.parametrize("words", [words for words in WORDS if words != "toy"])
def test_nine_other_words_hardly_change_a_color(words):
    alone = rgb2lab(np.concatenate([class_colors([name]) for name in WORDS[words].split()]) / 255)
    together = rgb2lab(class_colors(WORDS[words].split()) / 255)
    changes = np.linalg.norm(alone - together, axis=-1)
    assert np.median(changes) < 10
    assert np.quantile(changes, 0.75) < 20


def test_only_the_first_synonym_counts_if_there_is_no_conflict():
    names = ["sofa, couch", "Sofa", " sofa ,settee"]
    assert len({class_colors([name]).tobytes() for name in names}) == 1
    assert len(np.unique(class_colors(names), axis=0)) == 3
    assert np.array_equal(class_colors(["palm tree"]), class_colors(["tree"]))


@pytest.mark.parametrize("name", ["coco_stuff_171", "ade20k_150"])
def test_the_classes_of_a_benchmark_differ(name):
    assert smallest_distance(class_colors(get_vocabulary(name))) > 3


@pytest.mark.parametrize("count", [0, 1, 1024])
def test_up_to_1024_colors_differ(count):
    colors = class_colors([f"class {index}" for index in range(count)])
    assert colors.shape == (count, 3)
    assert colors.dtype == np.uint8
    assert len(np.unique(colors, axis=0)) == count


def test_more_classes_and_repeated_names_have_colors_too():
    assert class_colors([str(index) for index in range(2500)]).shape == (2500, 3)
    assert len(np.unique(class_colors(["kite"] * 5), axis=0)) == 5


def test_colors_belong_to_the_caller():
    class_colors(["sky"])[:] = 0
    assert class_colors(["sky"]).any()
