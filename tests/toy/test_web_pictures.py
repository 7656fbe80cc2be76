from collections import Counter

import numpy as np
import pytest

from pixelclip.modeling.clip_loader import load_clip_config, load_tokenizer
from pixelclip.toy.scenes import CLASS_NAMES
from pixelclip.toy.textures import STUFF_NAMES
from pixelclip.toy.things import THING_NAMES
from pixelclip.toy.web_pictures import cut_in_two, make_web_picture


@pytest.fixture(scope="module")
def pictures():
    return [make_web_picture(5, index) for index in range(400)]


def test_a_picture_follows_from_seed_and_number(pictures):
    again = make_web_picture(5, 17)
    assert np.array_equal(again.pixels, pictures[17].pixels)
    assert again[1:] == pictures[17][1:]
    for other in (make_web_picture(5, 18), make_web_picture(6, 17)):
        assert not np.array_equal(other.pixels, pictures[17].pixels)


def test_pictures_are_small_and_not_flat(pictures):
    for picture in pictures:
        assert picture.pixels.shape == (48, 48, 3)
        assert picture.pixels.dtype == np.uint8
        assert picture.pixels.std() > 1


def test_every_class_occurs_fairly_often(pictures):
    counts = Counter(name for picture in pictures for name in set(picture.names))
    assert set(counts) == set(CLASS_NAMES)
    # One or two of 8 kinds of stuff; one thing of 12 in 55 % of the pictures, two in 30 %.
    expected = {**dict.fromkeys(STUFF_NAMES, 400 * 1.5 / 8)}
    expected.update(dict.fromkeys(THING_NAMES, 400 * (0.55 + 2 * 0.3) / 12))
    for name, count in counts.items():
        assert 0.5 * expected[name] < count < 1.6 * expected[name], name


def test_captions_speak_of_the_picture_only(pictures):
    for picture in pictures:
        mentioned = set(picture.caption.split()) & set(CLASS_NAMES)
        assert mentioned <= set(picture.names)


def test_every_caption_fits_into_the_context(pictures):
    tokenizer = load_tokenizer("toy")
    longest = max(len(tokenizer.encode(picture.caption)) for picture in pictures)
    # With start and end, and with room for captions that these pictures happen not to have.
    assert longest + 2 < 0.8 * load_clip_config("toy")["text_cfg"]["context_length"]


def test_a_cut_leaves_two_sides():
    for seed in range(30):
        coverage = cut_in_two(np.random.default_rng(seed), (48, 48))
        assert coverage.shape == (48, 48)
        assert set(np.unique(coverage)) == {0.0, 1.0}
        assert 0.02 < coverage.mean() < 0.98
