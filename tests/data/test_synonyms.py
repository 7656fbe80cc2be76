"""The vocabularies with synonyms: same classes in the same order, no word in two classes."""

import pytest

from pixelclip.data.vocabularies import (
    SYNONYM_SEPARATOR,
    _published,
    get_vocabulary,
    validate_class_names,
)

SYNONYMS = {name: v["synonyms"] for name, v in _published().items() if v["synonyms"]}


@pytest.mark.parametrize("name", SYNONYMS)
def test_each_entry_begins_with_the_published_name(name: str) -> None:
    published, rich = get_vocabulary(name), get_vocabulary(f"{name}_synonyms")
    assert [entry.split(SYNONYM_SEPARATOR)[0] for entry in rich] == list(published)
    assert validate_class_names(rich) == rich


@pytest.mark.parametrize("name", SYNONYMS)
def test_every_synonym_belongs_to_a_class_of_the_benchmark(name: str) -> None:
    assert set(SYNONYMS[name]) <= set(get_vocabulary(name))
    assert len(SYNONYMS[name]) > 0.9 * len(get_vocabulary(name))


@pytest.mark.parametrize("name", SYNONYMS)
def test_no_word_stands_for_two_classes(name: str) -> None:
    rich = get_vocabulary(f"{name}_synonyms")
    words = [word.strip() for entry in rich for word in entry.split(SYNONYM_SEPARATOR)]
    assert len(words) == len(set(words))


@pytest.mark.parametrize("name", SYNONYMS)
def test_synonyms_are_separated_as_the_text_classifier_reads_them(name: str) -> None:
    for synonyms in SYNONYMS[name].values():
        for word in synonyms.split(SYNONYM_SEPARATOR):
            assert "," not in word
            assert word == word.strip() != ""
