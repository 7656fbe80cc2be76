import colorsys
from collections import Counter

import numpy as np
import pytest

from pixelclip.modeling.clip_loader import load_clip_config, load_tokenizer
from pixelclip.toy.captioned_images import (
    COLOR_NAMES,
    MENTIONS_COLOR,
    MENTIONS_OBJECT,
    MENTIONS_PART,
    MENTIONS_STUFF,
    Region,
    all_caption_words,
    cut_in_two,
    make_caption,
    make_captioned_image,
    name_color,
)
from pixelclip.toy.objects import THING_NAMES
from pixelclip.toy.scenes import CLASS_NAMES
from pixelclip.toy.textures import STUFF_NAMES


@pytest.fixture(scope="module")
def images():
    return [make_captioned_image(5, index) for index in range(400)]


def test_an_image_follows_from_seed_and_index(images):
    again = make_captioned_image(5, 17)
    assert np.array_equal(again.pixels, images[17].pixels)
    assert again[1:] == images[17][1:]
    for other in (make_captioned_image(5, 18), make_captioned_image(6, 17)):
        assert not np.array_equal(other.pixels, images[17].pixels)


def test_images_are_small_and_not_flat(images):
    for image in images:
        assert image.pixels.shape == (48, 48, 3)
        assert image.pixels.dtype == np.uint8
        assert image.pixels.std() > 1


def test_every_class_occurs_fairly_often(images):
    counts = Counter(name for image in images for name in set(image.names))
    assert set(counts) == set(CLASS_NAMES)
    # One or two of 8 kinds of stuff; one object of 12 in 55 % of the images, two in 30 %.
    expected = {**dict.fromkeys(STUFF_NAMES, 400 * 1.5 / 8)}
    expected.update(dict.fromkeys(THING_NAMES, 400 * (0.55 + 2 * 0.3) / 12))
    for name, count in counts.items():
        assert 0.5 * expected[name] < count < 1.6 * expected[name], name


def test_captions_mention_visible_classes_only(images):
    for image in images:
        assert set(image.caption.split()) & set(CLASS_NAMES) <= set(image.names)


def test_every_caption_fits_into_the_context(images):
    tokenizer = load_tokenizer("toy")
    longest = max(len(tokenizer.encode(image.caption)) for image in images)
    # With start and end, and with room for captions that these images happen not to have.
    assert longest + 2 < 0.8 * load_clip_config("toy")["text_cfg"]["context_length"]


def test_a_cut_leaves_two_sides():
    for seed in range(30):
        coverage = cut_in_two(np.random.default_rng(seed), (48, 48))
        assert coverage.shape == (48, 48)
        assert set(np.unique(coverage)) == {0.0, 1.0}
        assert 0.02 < coverage.mean() < 0.98


def test_every_color_has_one_of_the_names_and_every_name_a_color():
    steps = [i / 20 for i in range(21)]
    names = {
        name_color(colorsys.hsv_to_rgb(hue, saturation, value))
        for hue in steps
        for saturation in steps
        for value in steps
    }
    assert names == set(COLOR_NAMES)


def captions(objects, stuff, count=1500):
    rng = np.random.default_rng(0)
    visible = [[Region(name, "red") for name in names] for names in (objects, stuff)]
    return [make_caption(rng, *visible).split() for _ in range(count)]


def test_objects_and_stuff_are_mentioned_with_their_chances():
    written = captions(["fish", "lamp"], ["sand", "snow"])
    for name, chance in (
        ("fish", MENTIONS_OBJECT),
        ("lamp", MENTIONS_OBJECT),
        ("sand", MENTIONS_STUFF),
        ("snow", MENTIONS_STUFF),
    ):
        found = np.mean([name in words for words in written])
        assert found == pytest.approx(chance, abs=0.04), name


def test_colors_and_parts_are_mentioned_with_their_chances():
    rng = np.random.default_rng(0)
    car = Region("car", "red", (("wheel", "black"),))
    written = [make_caption(rng, [car], []).split() for _ in range(1500)]
    with_car = [words for words in written if "car" in words]
    for word, chance in (("wheel", MENTIONS_PART), ("red", MENTIONS_COLOR)):
        found = np.mean([word in words for words in with_car])
        assert found == pytest.approx(chance, abs=0.04), word
    assert all("wheel" in words for words in with_car if "black" in words)


def test_absent_classes_are_not_mentioned():
    absent = set(CLASS_NAMES) - {"boat", "water"}
    assert not any(absent & set(words) for words in captions(["boat"], ["water"], 300))


def test_a_caption_is_never_empty():
    written = captions([], ["grass"], 300)
    assert all(written)
    assert all(("something" in words) != ("grass" in words) for words in written)


def test_all_words_are_known():
    known = {*all_caption_words(), "cup", "bird", "brick", "wood", "red"}
    written = captions(["cup", "bird"], ["brick", "wood"], 500)
    assert {word for words in written for word in words} <= known
    assert len({" ".join(words) for words in written}) > 400, "captions vary"


def test_a_caption_follows_from_the_seed():
    first, again = (
        make_caption(np.random.default_rng(7), [Region("cup", "red")], []) for _ in range(2)
    )
    assert first == again
