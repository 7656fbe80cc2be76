"""Class names: complete, letter by letter, and the check of a user's own."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelclip.data.vocabularies import get_vocabulary, validate_class_names

NAMES = ["coco_stuff_171", "ade20k_150", "pascal_context_59", "cityscapes_19", "pascal_voc_20"]


@pytest.mark.parametrize("name", NAMES)
def test_a_vocabulary_has_as_many_different_names_as_it_says(name: str) -> None:
    vocabulary = get_vocabulary(name)
    assert len(vocabulary) == len(set(vocabulary)) == int(name.rsplit("_", 1)[1])
    assert validate_class_names(vocabulary) == vocabulary


def test_names_are_those_of_the_published_evaluations() -> None:
    facts = Path(__file__).resolve().parents[3] / "shared/facts/benchmark_vocabularies.json"
    if not facts.is_file():
        pytest.skip("the folder of recorded facts is not beside this repository")
    published = json.loads(facts.read_text())
    assert sorted(published) == sorted(NAMES)
    for name, class_names in published.items():
        assert list(get_vocabulary(name)) == class_names


def test_odd_spellings_are_kept() -> None:
    assert get_vocabulary("ade20k_150")[7] == "bed "
    assert get_vocabulary("coco_stuff_171")[84] == "building-other"
    assert get_vocabulary("pascal_voc_20")[19] == "tvmonitor"


@pytest.mark.parametrize("name", ["ade20k", "", None, 3, ["ade20k_150"]])
def test_an_unknown_vocabulary_is_named_with_the_known_ones(name: object) -> None:
    with pytest.raises(ValueError) as caught:
        get_vocabulary(name)  # type: ignore[arg-type]
    assert repr(name) in str(caught.value)
    assert all(known in str(caught.value) for known in NAMES)


@given(
    st.lists(st.text().filter(lambda text: all(p.strip() for p in text.split(", "))), min_size=1)
)
def test_valid_names_come_back_unchanged(names: list[str]) -> None:
    assert validate_class_names(names) == tuple(names)


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        ([], ["empty", '["cat"]']),
        ("cat", ["list or tuple", "str", "'cat'", '["cat", "dog"]']),
        (None, ["NoneType"]),
        (7, ["int", "7"]),
        ({"cat": 1}, ["dict"]),
        (["cat", ""], ["1", "''", "Remove"]),
        (["cat", "dog", " \t"], ["2", "' \\t'"]),
        (["cat", 3], ["1", "int", "3"]),
        ([None], ["0", "NoneType"]),
        (["cat", b"dog"], ["1", "bytes"]),
        (["sofa, ", "cat"], ["0", "'sofa, '", "synonym"]),
        (["cat", "sofa, , couch"], ["1", "synonym", "comma"]),
    ],
)
def test_bad_names_are_refused_with_value_index_and_remedy(names: object, parts: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        validate_class_names(names)  # type: ignore[arg-type]
    for part in parts:
        assert part in str(caught.value)
