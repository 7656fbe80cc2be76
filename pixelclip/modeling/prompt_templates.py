"""Sentences that a class name is put into before the text encoder reads it.

``single`` is the template that the class prompts are trained with; ``imagenet`` are the 80 of CLIP,
``imagenet_select`` seven of them and ``single``; ``vild`` are the 63 of ViLD, which choose "a" or
"an" by the class name.
"""

from string import Formatter

# fmt: off
_PROMPT_TEMPLATES: dict[str, tuple[str, ...]] = {
    "single": (
        "A photo of a {} in the scene",
    ),
    "imagenet_select": (
        "itap of a {}.", "a bad photo of the {}.", "a origami {}.", "a photo of the large {}.",
        "a {} in a video game.", "art of the {}.", "a photo of the small {}.",
        "A photo of a {} in the scene",
    ),
    "imagenet": (
        "a bad photo of a {}.", "a photo of many {}.", "a sculpture of a {}.",
        "a photo of the hard to see {}.", "a low resolution photo of the {}.",
        "a rendering of a {}.", "graffiti of a {}.", "a bad photo of the {}.",
        "a cropped photo of the {}.", "a tattoo of a {}.", "the embroidered {}.",
        "a photo of a hard to see {}.", "a bright photo of a {}.", "a photo of a clean {}.",
        "a photo of a dirty {}.", "a dark photo of the {}.", "a drawing of a {}.",
        "a photo of my {}.", "the plastic {}.", "a photo of the cool {}.",
        "a close-up photo of a {}.", "a black and white photo of the {}.", "a painting of the {}.",
        "a painting of a {}.", "a pixelated photo of the {}.", "a sculpture of the {}.",
        "a bright photo of the {}.", "a cropped photo of a {}.", "a plastic {}.",
        "a photo of the dirty {}.", "a jpeg corrupted photo of a {}.", "a blurry photo of the {}.",
        "a photo of the {}.", "a good photo of the {}.", "a rendering of the {}.",
        "a {} in a video game.", "a photo of one {}.", "a doodle of a {}.",
        "a close-up photo of the {}.", "a photo of a {}.", "the origami {}.",
        "the {} in a video game.", "a sketch of a {}.", "a doodle of the {}.", "a origami {}.",
        "a low resolution photo of a {}.", "the toy {}.", "a rendition of the {}.",
        "a photo of the clean {}.", "a photo of a large {}.", "a rendition of a {}.",
        "a photo of a nice {}.", "a photo of a weird {}.", "a blurry photo of a {}.",
        "a cartoon {}.", "art of a {}.", "a sketch of the {}.", "a embroidered {}.",
        "a pixelated photo of a {}.", "itap of the {}.", "a jpeg corrupted photo of the {}.",
        "a good photo of a {}.", "a plushie {}.", "a photo of the nice {}.",
        "a photo of the small {}.", "a photo of the weird {}.", "the cartoon {}.", "art of the {}.",
        "a drawing of the {}.", "a photo of the large {}.", "a black and white photo of a {}.",
        "the plushie {}.", "a dark photo of a {}.", "itap of a {}.", "graffiti of the {}.",
        "a toy {}.", "itap of my {}.", "a photo of a cool {}.", "a photo of a small {}.",
        "a tattoo of the {}.",
    ),
    "vild": (
        "There is {article} {category} in the scene.", "There is the {category} in the scene.",
        "a photo of {article} {category} in the scene.", "a photo of the {category} in the scene.",
        "a photo of one {category} in the scene.", "itap of {article} {category}.",
        "itap of my {category}.", "itap of the {category}.", "a photo of {article} {category}.",
        "a photo of my {category}.", "a photo of the {category}.", "a photo of one {category}.",
        "a photo of many {category}.", "a good photo of {article} {category}.",
        "a good photo of the {category}.", "a bad photo of {article} {category}.",
        "a bad photo of the {category}.", "a photo of a nice {category}.",
        "a photo of the nice {category}.", "a photo of a cool {category}.",
        "a photo of the cool {category}.", "a photo of a weird {category}.",
        "a photo of the weird {category}.", "a photo of a small {category}.",
        "a photo of the small {category}.", "a photo of a large {category}.",
        "a photo of the large {category}.", "a photo of a clean {category}.",
        "a photo of the clean {category}.", "a photo of a dirty {category}.",
        "a photo of the dirty {category}.", "a bright photo of {article} {category}.",
        "a bright photo of the {category}.", "a dark photo of {article} {category}.",
        "a dark photo of the {category}.", "a photo of a hard to see {category}.",
        "a photo of the hard to see {category}.", "a low resolution photo of {article} {category}.",
        "a low resolution photo of the {category}.", "a cropped photo of {article} {category}.",
        "a cropped photo of the {category}.", "a close-up photo of {article} {category}.",
        "a close-up photo of the {category}.", "a jpeg corrupted photo of {article} {category}.",
        "a jpeg corrupted photo of the {category}.", "a blurry photo of {article} {category}.",
        "a blurry photo of the {category}.", "a pixelated photo of {article} {category}.",
        "a pixelated photo of the {category}.", "a black and white photo of the {category}.",
        "a black and white photo of {article} {category}.", "a plastic {category}.",
        "the plastic {category}.", "a toy {category}.", "the toy {category}.",
        "a plushie {category}.", "the plushie {category}.", "a cartoon {category}.",
        "the cartoon {category}.", "an embroidered {category}.", "the embroidered {category}.",
        "a painting of the {category}.", "a painting of a {category}.",
    ),
}
# fmt: on

PROMPT_TEMPLATE_SETS: tuple[str, ...] = tuple(_PROMPT_TEMPLATES)

_VOWELS = tuple("aeiouAEIOU")


def get_prompt_templates(name: str) -> tuple[str, ...]:
    """Return a named set of prompt templates.

    Args:
        name: "single" (1 template), "imagenet_select" (8), "imagenet" (80) or "vild" (63).

    Returns:
        Templates for :func:`fill_template`, in their published order.

    Raises:
        ValueError: the name is not one of these.
    """
    if not isinstance(name, str) or name not in _PROMPT_TEMPLATES:
        accepted = ", ".join(_PROMPT_TEMPLATES)
        raise ValueError(f"Unknown set of prompt templates {name!r}. Accepted: {accepted}.")
    return _PROMPT_TEMPLATES[name]


def fill_template(template: str, class_name: str) -> str:
    """Put a class name into a prompt template.

    The name is inserted as it is, trailing blanks and upper case included.

    Args:
        template: a sentence with one ``{}``, or with ``{category}`` and, where wanted,
            ``{article}``.
        class_name: one name, without synonyms; "an" replaces ``{article}`` where the name begins
            with a vowel, else "a".

    Returns:
        The sentence.

    Raises:
        ValueError: the template has no place for the name, or a place that nothing goes into.

    >>> fill_template("itap of {article} {category}.", "airplane")
    'itap of an airplane.'
    """
    _validate_template(template)
    article = "an" if class_name.startswith(_VOWELS) else "a"
    return template.format(class_name, article=article, category=class_name)


def _validate_template(template: str) -> None:
    expected = 'one "{}", or "{category}" with or without "{article}", and no other brace'
    try:
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except (TypeError, ValueError) as error:
        raise ValueError(f"Prompt template {template!r}: {error}. Expected {expected}.") from error
    positional = fields == [""]
    named = "category" in fields and set(fields) <= {"category", "article"}
    if not (positional or named):
        raise ValueError(
            f"Prompt template {template!r} has the places {fields}. Expected {expected}."
        )
