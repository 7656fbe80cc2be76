"""Captions as the web has them: they mention some of what a picture shows, among other words."""

from collections.abc import Sequence

import numpy as np

# Chance that a caption mentions a thing or a piece of stuff that the picture shows.
MENTIONS_THING = 0.9
MENTIONS_STUFF = 0.65

_OPENINGS = (
    "", "", "a photo of", "A photo of", "a picture of", "itap of", "art of", "a bad photo of",
    "a good photo of", "a rendering of", "a drawing of", "a painting of", "a close-up photo of",
    "a cropped photo of", "a bright photo of", "a dark photo of", "graffiti of", "my photo of",
)  # fmt: skip
_ARTICLES = ("a", "a", "the", "one", "my", "this")
_ADJECTIVES = (
    "", "", "", "", "large", "small", "old", "nice", "new", "origami", "weird", "clean", "toy",
    "little", "cool", "dirty",
)  # fmt: skip
_JOINERS = ("and", "and", "with", "next to", "near", ",")
_PLACES = ("on", "in front of", "with", "by", "in", "and", ",", "under", "over")
_ENDINGS = (
    "", "", "", "", "in the scene", "in the scene", "in a video game", ".", ".", "on a fine day",
    "from above", "today", "at home",
)  # fmt: skip
_NOTHING = "something"


def make_caption(rng: np.random.Generator, things: Sequence[str], stuff: Sequence[str]) -> str:
    """Write a caption.

    Args:
        rng: chooses what is mentioned, and in which words.
        things: names of the things in the picture.
        stuff: names of its stuff.
    """
    named_things = [name for name in things if rng.random() < MENTIONS_THING]
    named_stuff = [name for name in stuff if rng.random() < MENTIONS_STUFF]
    joiner = f" {_choose(rng, _JOINERS)} "
    subject = joiner.join(_with_article(rng, name) for name in named_things)
    place = " and ".join(f"the {name}" if rng.random() < 0.4 else name for name in named_stuff)
    if subject and place:
        subject = f"{subject} {_choose(rng, _PLACES)} {place}"
    words = [_choose(rng, _OPENINGS), subject or place or _NOTHING, _choose(rng, _ENDINGS)]
    return " ".join(" ".join(words).split())


def all_caption_words() -> tuple[str, ...]:
    """Every word that captions are made of, the names of things and stuff aside."""
    pieces = (*_OPENINGS, *_ARTICLES, *_ADJECTIVES, *_JOINERS, *_PLACES, *_ENDINGS, _NOTHING)
    return tuple(sorted({word for piece in pieces for word in piece.split()}))


def _with_article(rng: np.random.Generator, name: str) -> str:
    return " ".join((_choose(rng, _ARTICLES), _choose(rng, _ADJECTIVES), name))


def _choose(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]
