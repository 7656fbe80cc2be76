import numpy as np
import pytest

from pixelclip.toy.captions import (
    MENTIONS_COLOUR,
    MENTIONS_PART,
    MENTIONS_STUFF,
    MENTIONS_THING,
    Sight,
    all_caption_words,
    make_caption,
)
from pixelclip.toy.scenes import CLASS_NAMES


def captions(things, stuff, count=1500):
    rng = np.random.default_rng(0)
    seen = [[Sight(name, "red") for name in names] for names in (things, stuff)]
    return [make_caption(rng, *seen).split() for _ in range(count)]


def test_things_and_stuff_are_mentioned_with_their_chances():
    written = captions(["fish", "lamp"], ["sand", "snow"])
    for name, chance in (
        ("fish", MENTIONS_THING),
        ("lamp", MENTIONS_THING),
        ("sand", MENTIONS_STUFF),
        ("snow", MENTIONS_STUFF),
    ):
        found = np.mean([name in words for words in written])
        assert found == pytest.approx(chance, abs=0.04), name


def test_colours_and_parts_are_mentioned_with_their_chances():
    rng = np.random.default_rng(0)
    sight = Sight("car", "red", (("wheel", "black"),))
    written = [make_caption(rng, [sight], []).split() for _ in range(1500)]
    of_the_car = [words for words in written if "car" in words]
    assert np.mean(["wheel" in words for words in of_the_car]) == pytest.approx(
        MENTIONS_PART, abs=0.04
    )
    assert np.mean(["red" in words for words in of_the_car]) == pytest.approx(
        MENTIONS_COLOUR, abs=0.04
    )
    assert all("wheel" in words for words in of_the_car if "black" in words)


def test_nothing_is_mentioned_that_is_not_there():
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
        make_caption(np.random.default_rng(7), [Sight("cup", "red")], []) for _ in range(2)
    )
    assert first == again
