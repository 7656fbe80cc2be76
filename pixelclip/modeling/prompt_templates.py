"""Sentences that a class name is put into before the text encoder reads it.

The sets are in ``prompt_templates.json``: ``single`` is the template that the class prompts are
trained with; ``imagenet`` are the 80 of CLIP, ``imagenet_select`` seven of them and ``single``;
``vild`` are the 63 of ViLD, which choose "a" or "an" by the class name.
"""

import functools
import json
from pathlib import Path
from string import Formatter

PROMPT_TEMPLATE_SETS = ("single", "imagenet_select", "imagenet", "vild")


@functools.cache
def _prompt_templates() -> dict[str, tuple[str, ...]]:
    text = Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
    return {name: tuple(templates) for name, templates in json.loads(text).items()}


def get_prompt_templates(name: str) -> tuple[str, ...]:
    """Return a named set of prompt templates.

    Args:
        name: "single" (1 template), "imagenet_select" (8), "imagenet" (80) or "vild" (63).

    Returns:
        Templates for :func:`fill_template`, in their published order.

    Raises:
        ValueError: the name is not one of these.
    """
    sets = _prompt_templates()
    if not isinstance(name, str) or name not in sets:
        raise ValueError(f"Unknown set of prompt templates {name!r}. Accepted: {', '.join(sets)}.")
    return sets[name]


def fill_template(template: str, class_name: str) -> str:
    """Put a class name into a prompt template, trailing blanks and upper case included.

    Args:
        template: a sentence with one ``{}``, or with ``{category}`` and, where wanted,
            ``{article}``.
        class_name: one name, without synonyms; "an" replaces ``{article}`` where the name begins
            with a vowel, else "a".

    Raises:
        ValueError: the template has no place for the name, or a place that nothing goes into.

    >>> fill_template("itap of {article} {category}.", "airplane")
    'itap of an airplane.'
    """
    _validate_template(template)
    article = "an" if class_name[:1].lower() in tuple("aeiou") else "a"
    return template.format(class_name, article=article, category=class_name)


def _validate_template(template: str) -> None:
    expected = 'one "{}", or "{category}" with or without "{article}", and no other brace'
    try:
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except (TypeError, ValueError) as error:
        raise ValueError(f"Prompt template {template!r}: {error}. Expected {expected}.") from error
    named = "category" in fields and set(fields) <= {"category", "article"}
    if fields != [""] and not named:
        raise ValueError(
            f"Prompt template {template!r} has the places {fields}. Expected {expected}."
        )
