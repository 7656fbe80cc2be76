"""Class names: complete, letter by letter, and the check of a user's own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from hypothesis import given
from hypothesis import strategies as st

import pixelclip  # noqa: F401  registers the data sets
from pixelclip.data.datasets import BENCHMARKS
from pixelclip.data.vocabularies import (
    get_vocabulary,
    parse_words,
    read_vocabulary,
    validate_class_names,
    vocabulary_of_dataset,
)

NAMES = ["coco_stuff_171", "ade20k_150", "pascal_context_59", "cityscapes_19", "pascal_voc_20"]
WITH_BACKGROUND = ["pascal_context_60", "pascal_voc_21"]


@pytest.mark.parametrize("name", NAMES + WITH_BACKGROUND)
def test_a_vocabulary_has_as_many_different_names_as_it_says(name: str) -> None:
    vocabulary = get_vocabulary(name)
    assert len(vocabulary) == len(set(vocabulary)) == int(name.rsplit("_", 1)[1])
    assert validate_class_names(vocabulary) == vocabulary


def test_names_are_those_of_the_published_evaluations() -> None:
    facts = Path(__file__).resolve().parents[3] / "shared/facts/benchmark_vocabularies.json"
    if not facts.is_file():
        pytest.skip("the folder of recorded facts is not next to this repository")
    published = json.loads(facts.read_text())
    assert sorted(published) == sorted(NAMES)
    for name, class_names in published.items():
        assert list(get_vocabulary(name)) == class_names


def test_odd_spellings_are_kept() -> None:
    assert get_vocabulary("ade20k_150")[7] == "bed "
    assert get_vocabulary("coco_stuff_171")[84] == "building-other"
    assert get_vocabulary("pascal_voc_20")[19] == "tvmonitor"


@pytest.mark.parametrize(
    "name",
    ["ade20k", "", None, 3, ["ade20k_150"], "_synonyms", "x_synonyms", "ade20k_150_synonyms_2"],
)
def test_an_unknown_vocabulary_is_named_with_the_known_ones(name: object) -> None:
    with pytest.raises(ValueError) as caught:
        get_vocabulary(name)  # type: ignore[arg-type]
    assert repr(name) in str(caught.value)
    assert all(known in str(caught.value) for known in [*NAMES, "_synonyms"])


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_a_data_set_has_its_names_and_its_names_with_synonyms(benchmark: Any) -> None:
    names = vocabulary_of_dataset(benchmark.name)
    assert names == benchmark.class_names == vocabulary_of_dataset(benchmark.name, "")
    rich = vocabulary_of_dataset(benchmark.name, "synonyms")
    assert rich == get_vocabulary(f"{benchmark.vocabulary}_synonyms")
    assert len(rich) == len(names)
    assert sum(", " in entry for entry in rich) > len(names) // 2
    if benchmark.background_index is not None:
        assert rich[benchmark.background_index] == "background"


@pytest.fixture
def own_metadata() -> Iterator[Metadata]:
    yield MetadataCatalog.get("own_names_for_vocabularies")
    MetadataCatalog.remove("own_names_for_vocabularies")


def test_a_data_set_of_somebody_else_has_its_own_names(own_metadata: Metadata) -> None:
    with pytest.raises(ValueError, match="no class names: set stuff_classes"):
        vocabulary_of_dataset(own_metadata.name)
    own_metadata.stuff_classes = ["sky, heaven", "sea"]
    assert vocabulary_of_dataset(own_metadata.name) == ("sky, heaven", "sea")
    with pytest.raises(ValueError, match=f"{own_metadata.name}.* no vocabulary with synonyms"):
        vocabulary_of_dataset(own_metadata.name, "synonyms")


def test_an_unknown_variant_or_data_set_is_refused() -> None:
    with pytest.raises(ValueError, match="VOCABULARY is 'rich'; it must be one of '', 'synonyms'"):
        vocabulary_of_dataset("ade20k_150_test_sem_seg", "rich")
    with pytest.raises(ValueError, match="'nowhere' is not registered"):
        vocabulary_of_dataset("nowhere")
    assert "nowhere" not in MetadataCatalog


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


def test_a_vocabulary_is_a_list_a_file_or_one_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeffsky\r\n\r\n  sofa/ couch, car \n\u685c".encode())
    for file in (str(path), path):
        assert read_vocabulary(file) == ("sky", "sofa, couch", "car", "\u685c")
    assert read_vocabulary(["sky "]) == ("sky ",)
    for name in ("cityscapes_19", "cityscapes_19_synonyms"):
        assert read_vocabulary(name) == get_vocabulary(name)


def test_a_class_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("sky\ncar, Sky")
    for vocabulary in (["sky", "car", "sky "], path):
        with pytest.raises(ValueError, match="Given twice: 'sky'"):
            read_vocabulary(vocabulary)


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["car, sky, tree"], ("car", "sky", "tree")),
        (["car,", "sky,", "tree"], ("car", "sky", "tree")),
        (["car", ",", "traffic", "light"], ("car", "traffic light")),
        (["car", "traffic light"], ("car", "traffic light")),
        (["car", "sky, tree", "sofa/ couch"], ("car", "sky", "tree", "sofa, couch")),
        (["car,"], ("car",)),
    ],
)
def test_words_are_read_as_people_type_them(texts: list[str], names: tuple[str, ...]) -> None:
    assert parse_words(texts) == names


@pytest.mark.parametrize("text", ["cat", "ade20k", "ade20k_150_synonymss", "", "."])
def test_a_vocabulary_that_is_none_of_these_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"pascal_voc_21, toy_scenes_20"):
        read_vocabulary(text)
