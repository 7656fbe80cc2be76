"""Prompt templates: the published sets, and how a class name is filled in."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelclip.data.vocabularies import get_vocabulary
from pixelclip.modeling.prompt_templates import fill_template, get_prompt_templates

SIZES = {"single": 1, "imagenet_select": 8, "imagenet": 80, "vild": 63}


@pytest.mark.parametrize("name", SIZES)
def test_a_set_is_complete_and_each_template_takes_a_name(name: str) -> None:
    templates = get_prompt_templates(name)
    assert len(templates) == len(set(templates)) == SIZES[name]
    for template in templates:
        sentence = fill_template(template, "Hammerhead shark ")
        assert sentence.count("Hammerhead shark ") == 1
        assert "{" not in sentence


def test_templates_are_the_published_ones() -> None:
    facts = Path(__file__).resolve().parents[3] / "shared/facts/prompt_templates.json"
    if not facts.is_file():
        pytest.skip("the folder of recorded facts is not next to this repository")
    published = json.loads(facts.read_text())
    assert sorted(published) == sorted(SIZES)
    for name, templates in published.items():
        assert list(get_prompt_templates(name)) == templates


def test_the_selection_is_seven_of_the_eighty_and_the_single_one() -> None:
    selection = get_prompt_templates("imagenet_select")
    assert selection[-1:] == get_prompt_templates("single")
    assert set(selection[:-1]) <= set(get_prompt_templates("imagenet"))


@pytest.mark.parametrize("name", ["Imagenet", "", None, 8, ["single"]])
def test_an_unknown_set_is_named_with_the_known_ones(name: object) -> None:
    with pytest.raises(ValueError) as caught:
        get_prompt_templates(name)  # type: ignore[arg-type]
    assert repr(name) in str(caught.value)
    assert all(known in str(caught.value) for known in SIZES)


@given(st.text())
def test_any_name_is_inserted_as_it_is(name: str) -> None:
    assert fill_template("a photo of the {}.", name) == f"a photo of the {name}."
    assert fill_template("itap of my {category}.", name) == f"itap of my {name}."


@pytest.mark.parametrize(
    ("name", "article"),
    [("airplane", "an"), ("Oven", "an"), ("car", "a"), ("bed ", "a"), ("8-ball", "a"), ("", "a")],
)
def test_the_article_suits_the_name(name: str, article: str) -> None:
    sentence = fill_template("a photo of {article} {category}.", name)
    assert sentence == f"a photo of {article} {name}."


def test_every_benchmark_name_fits_every_template() -> None:
    for vocabulary in ("coco_stuff_171", "ade20k_150"):
        for template in get_prompt_templates("vild"):
            sentences = {fill_template(template, name) for name in get_vocabulary(vocabulary)}
            assert len(sentences) == len(get_vocabulary(vocabulary))


@pytest.mark.parametrize(
    "template",
    ["a photo", "", "{} and {}", "{0}", "{name}", "{article} thing", "{} {category}", "a {", None],
)
def test_a_template_without_one_place_for_the_name_is_refused(template: object) -> None:
    with pytest.raises(ValueError) as caught:
        fill_template(template, "cat")  # type: ignore[arg-type]
    assert repr(template) in str(caught.value)
    assert "Expected one" in str(caught.value)
