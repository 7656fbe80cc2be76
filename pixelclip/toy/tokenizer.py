"""The tiny CLIP's tokenizer: CLIP's own, with only the merges that the benchmark's words need.

These words, and those of the prompt templates, get the same tokens as from CLIP's tokenizer; other
words are split into smaller ones. This leaves 898 tokens of 49,408.
"""

import gzip
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from open_clip.tokenizer import SimpleTokenizer

from pixelclip.modeling.prompt_templates import PROMPT_TEMPLATE_SETS, get_prompt_templates
from pixelclip.toy.captioned_images import COLOR_NAMES, all_caption_words
from pixelclip.toy.objects import PART_NAMES
from pixelclip.toy.scenes import CLASS_NAMES
from pixelclip.utils.atomic_write import atomic_writer

Merge = tuple[str, str]


def benchmark_words() -> tuple[str, ...]:
    """The lower-case words of captions and prompt templates, and the placeholder."""
    templates = [t for name in PROMPT_TEMPLATE_SETS for t in get_prompt_templates(name)]
    sentences = [t.format("", article="a", category="") for t in templates]
    texts = [*sentences, *all_caption_words(), *CLASS_NAMES, *PART_NAMES, *COLOR_NAMES]
    letters = ("".join(c if c.isalpha() else " " for c in text.lower()) for text in texts)
    return tuple(sorted({word for text in letters for word in text.split()} | {"{}"}))


def needed_merges(words: Iterable[str]) -> list[Merge]:
    """The merges that CLIP's tokenizer applies to some words, in its order."""
    ranks = SimpleTokenizer().bpe_ranks
    used = {merge for word in words for merge in _merges_of(word, ranks)}
    return sorted(used, key=ranks.__getitem__)


def write_merges(path: Path) -> None:
    """Write the merges of the benchmark's words as a file that open_clip's tokenizer reads."""
    lines = ["# merges of CLIP's tokenizer", *map(" ".join, needed_merges(benchmark_words()))]
    with atomic_writer(path) as file:
        # Without a time in its header, the file depends on the words only.
        file.write(gzip.compress("\n".join(lines).encode(), mtime=0))


def _merges_of(word: str, ranks: dict[Merge, int]) -> Iterator[Merge]:
    """Byte-pair encoding of a word of ASCII characters, merge by merge."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    while len(pieces) > 1:
        merge = min(zip(pieces, pieces[1:], strict=False), key=lambda m: ranks.get(m, len(ranks)))
        if merge not in ranks:
            return
        yield merge
        pair = re.compile(rf"(?<!\S){re.escape(' '.join(merge))}(?!\S)")
        pieces = pair.sub("".join(merge), " ".join(pieces)).split()
