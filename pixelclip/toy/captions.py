"""Captions as the web has them: they mention some of what a picture shows, among other words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Chance that a caption mentions a thing or a piece of stuff that the picture shows.
MENTIONS_THING = 0.9
MENTIONS_STUFF = 0.65
# Chances that it then says the colour, or a part of the thing.
MENTIONS_COLOUR = 0.3
MENTIONS_PART = 0.35

_OPENINGS = (
    "", "", "a photo of", "A photo of", "a picture of", "itap of", "art of", "a bad photo of",
    "a good photo of", "a rendering of", "a drawing of", "a painting of", "a close-up photo of",
    "a cropped photo of", "graffiti of", "my photo of",
)  # fmt: skip
_ARTICLES = ("a", "a", "the", "one", "my", "this")
_ADJECTIVES = (
    "", "", "", "", "old", "nice", "new", "origami", "weird", "clean", "toy", "cool", "dirty",
)  # fmt: skip
_JOINERS = ("and", "and", "with", "next to", "near", ",")
_PLACES = ("on", "in front of", "with", "by", "in", "and", ",", "under", "over")
_ENDINGS = (
    "", "", "", "", "in the scene", "in the scene", "in a video game", ".", ".", "on a fine day",
    "from above", "today", "at home",
)  # fmt: skip
_NOTHING = "something"


@dataclass(frozen=True)
class Sight:
    """Something that a picture shows.

    Attributes:
        name: its class.
        colour: the word for its colour.
        parts: name and colour of the parts that are seen.
    """

    name: str
    colour: str
    parts: tuple[tuple[str, str], ...] = ()


def make_caption(rng: np.random.Generator, things: Sequence[Sight], stuff: Sequence[Sight]) -> str:
    """Write a caption.

    Args:
        rng: chooses what is mentioned, and in which words.
        things: the things in the picture.
        stuff: its stuff.
    """
    named_things = [thing for thing in things if rng.random() < MENTIONS_THING]
    named_stuff = [piece for piece in stuff if rng.random() < MENTIONS_STUFF]
    joiner = f" {_choose(rng, _JOINERS)} "
    subject = joiner.join(_describe_thing(rng, thing) for thing in named_things)
    place = " and ".join(_describe_stuff(rng, piece) for piece in named_stuff)
    if subject and place:
        subject = f"{subject} {_choose(rng, _PLACES)} {place}"
    words = [_choose(rng, _OPENINGS), subject or place or _NOTHING, _choose(rng, _ENDINGS)]
    return " ".join(" ".join(words).split())


def all_caption_words() -> tuple[str, ...]:
    """Every word that captions are made of, but for the names of classes, parts and colours."""
    pieces = (*_OPENINGS, *_ARTICLES, *_ADJECTIVES, *_JOINERS, *_PLACES, *_ENDINGS, _NOTHING)
    return tuple(sorted({word for piece in pieces for word in piece.split()}))


def _describe_thing(rng: np.random.Generator, thing: Sight) -> str:
    adjective = _choose(rng, _ADJECTIVES)
    words = [_choose(rng, _ARTICLES), adjective, _sometimes(rng, thing.colour), thing.name]
    if thing.parts and rng.random() < MENTIONS_PART:
        name, colour = thing.parts[int(rng.integers(len(thing.parts)))]
        words += ["with", _choose(rng, _ARTICLES), _sometimes(rng, colour), name]
    return " ".join(words)


def _describe_stuff(rng: np.random.Generator, piece: Sight) -> str:
    article = "the" if rng.random() < 0.4 else ""
    return " ".join((article, _sometimes(rng, piece.colour), piece.name))


def _sometimes(rng: np.random.Generator, colour: str) -> str:
    return colour if rng.random() < MENTIONS_COLOUR else ""


def _choose(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]
