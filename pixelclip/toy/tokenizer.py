"""The tiny CLIP's tokenizer: CLIP's own, with only the merges that the world's words need.

Words of the world, and of the prompt templates, get the same pieces as from CLIP's tokenizer; other
words fall into smaller ones. So 898 tokens take the place of 49,408.
"""

import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path

from open_clip.tokenizer import SimpleTokenizer

from pixelclip.modeling.prompt_templates import PROMPT_TEMPLATE_SETS, get_prompt_templates
from pixelclip.toy.captions import all_caption_words
from pixelclip.toy.colours import COLOUR_NAMES
from pixelclip.toy.scenes import CLASS_NAMES
from pixelclip.toy.things import PART_NAMES
from pixelclip.utils.atomic_write import atomic_writer

Merge = tuple[str, str]


def world_words() -> tuple[str, ...]:
    """The lower-case words of captions and prompt templates, and the placeholder."""
    templates = [t for name in PROMPT_TEMPLATE_SETS for t in get_prompt_templates(name)]
    sentences = [t.format("", article="a", category="") for t in templates]
    texts = [*sentences, *all_caption_words(), *CLASS_NAMES, *PART_NAMES, *COLOUR_NAMES]
    letters = ("".join(c if c.isalpha() else " " for c in text.lower()) for text in texts)
    return tuple(sorted({word for text in letters for word in text.split()} | {"{}"}))


def needed_merges(words: Iterable[str]) -> list[Merge]:
    """The merges that CLIP's tokenizer applies to some words, in its order."""
    ranks = SimpleTokenizer().bpe_ranks
    used = {merge for word in words for merge in _merges_of(word, ranks)}
    return sorted(used, key=ranks.__getitem__)


def write_merges(path: Path) -> None:
    """Write the merges of the world's words as a file that open_clip's tokenizer reads."""
    lines = ["# merges of CLIP's tokenizer", *map(" ".join, needed_merges(world_words()))]
    with atomic_writer(path) as file:
        # Without the time and the name in its head, the file depends on the words only.
        file.write(gzip.compress("\n".join(lines).encode(), mtime=0))


def _merges_of(word: str, ranks: dict[Merge, int]) -> Iterator[Merge]:
    """Byte-pair encoding of a word of ASCII characters, merge by merge."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    while len(pieces) > 1:
        merge = min(zip(pieces, pieces[1:], strict=False), key=lambda m: ranks.get(m, len(ranks)))
        if merge not in ranks:
            return
        yield merge
        pieces = _apply(merge, pieces)


def _apply(merge: Merge, pieces: list[str]) -> list[str]:
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == merge:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged
