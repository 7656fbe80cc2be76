import json
from pathlib import Path

import pytest
from open_clip.tokenizer import SimpleTokenizer

from pixelclip.modeling.clip_loader import BUILT_IN_ARCHITECTURES, load_tokenizer
from pixelclip.modeling.prompt_templates import fill_template, get_prompt_templates
from pixelclip.toy.scenes import CLASS_NAMES
from pixelclip.toy.tokenizer import benchmark_words, needed_merges, write_merges

CONFIG = Path(BUILT_IN_ARCHITECTURES["toy"])


@pytest.fixture(scope="module")
def tokenizers():
    return SimpleTokenizer(), load_tokenizer("toy")


def pieces(tokenizer, text):
    return [tokenizer.decoder[token] for token in tokenizer.encode(text)]


def test_words_of_the_benchmark_have_the_same_pieces_as_from_clip(tokenizers):
    clip, toy = tokenizers
    assert len(benchmark_words()) > 80
    for word in benchmark_words():
        assert pieces(toy, word) == pieces(clip, word), word


def test_sentences_have_the_same_pieces_as_from_clip(tokenizers):
    clip, toy = tokenizers
    for name in ("single", "imagenet", "vild"):
        for template in get_prompt_templates(name):
            sentence = fill_template(template, "mushroom")
            assert pieces(toy, sentence) == pieces(clip, sentence)


def test_class_names_and_the_placeholder_are_single_tokens(tokenizers):
    for word in (*CLASS_NAMES, "{}"):
        assert len(tokenizers[1].encode(word)) == 1, word


def test_other_words_are_split_into_smaller_pieces(tokenizers):
    clip, toy = tokenizers
    assert "".join(pieces(toy, "hippopotamus")) == "hippopotamus</w>"
    assert len(pieces(toy, "hippopotamus")) > len(pieces(clip, "hippopotamus"))


def test_ids_fit_into_the_tiny_clip(tokenizers):
    text_config = json.loads(CONFIG.read_text())["text_cfg"]
    toy = tokenizers[1]
    assert toy.vocab_size == text_config["vocab_size"]
    ids = toy(["a photo of a {} {} {} {} in the scene", "Ünïcode & 漢字", ""])
    assert ids.shape == (3, text_config["context_length"])
    assert ids.max() == toy.vocab_size - 1, "the end token has the highest id"


def test_the_shipped_merges_are_those_of_the_words(tmp_path):
    write_merges(tmp_path / "merges.txt.gz")
    shipped = (
        CONFIG.parent / json.loads(CONFIG.read_text())["text_cfg"]["tokenizer_kwargs"]["bpe_path"]
    )
    assert (tmp_path / "merges.txt.gz").read_bytes() == shipped.read_bytes()


def test_merges_are_in_clips_order_and_complete():
    ranks = SimpleTokenizer().bpe_ranks
    merges = needed_merges(["boat", "boats"])
    assert [ranks[merge] for merge in merges] == sorted(ranks[merge] for merge in merges)
    assert ("bo", "at</w>") in merges
