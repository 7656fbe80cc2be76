"""Class names of the benchmarks, and the check of a user's own class names.

The names, in ``vocabularies.json``, decide the text features and with them the mIoU, so they are
kept letter by letter as the benchmarks' published evaluations write them. Next to each vocabulary
there is one with synonyms, whose name ends in "_synonyms"; it begins each entry with the published
name.
"""

import functools
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog

# What the text classifier splits a name into synonyms at, as in "sofa, couch".
SYNONYM_SEPARATOR = ", "
SYNONYMS_VARIANT = "synonyms"
VARIANTS = ("", SYNONYMS_VARIANT)
_SUFFIX = f"_{SYNONYMS_VARIANT}"

_registered: dict[str, tuple[str, ...]] = {}


def register_vocabulary(name: str, class_names: Sequence[str]) -> None:
    """Add a vocabulary, as an application does; its name must not end in "_synonyms"."""
    _registered[name] = tuple(class_names)


@functools.cache
def _published() -> dict[str, dict[str, Any]]:
    """Of each vocabulary its ``names`` and its ``synonyms``, those of a class by its name.

    A class without synonyms has no other word that says the same without touching another class of
    its benchmark. The words name what the data set's annotators put into a class: COCO-Stuff's
    "light", for example, is a lamp.
    """
    text = Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
    vocabularies = json.loads(text)
    # With everything else as a class of its own, the last one.
    larger = {"pascal_context_60": "pascal_context_59", "pascal_voc_21": "pascal_voc_20"}
    for name, base in larger.items():
        names = [*vocabularies[base]["names"], "background"]
        vocabularies[name] = {"names": names, "synonyms": vocabularies[base]["synonyms"]}
    return vocabularies


def list_vocabularies() -> list[str]:
    """Names for :func:`get_vocabulary`, without the variants with synonyms."""
    return [*_published(), *_registered]


def get_vocabulary(name: str) -> tuple[str, ...]:
    """Return the class names of a benchmark in the order of its train ids.

    Args:
        name: "coco_stuff_171", "ade20k_150", "pascal_context_59", "cityscapes_19",
            "pascal_voc_20", or "pascal_context_60" and "pascal_voc_21", whose last class is
            "background", or one that was registered, as "toy_scenes_20"; each also with
            "_synonyms" behind it for the names followed by synonyms, as in "couch, sofa, settee".

    Returns:
        As many names as the number in ``name`` says; the index is the train id.

    Raises:
        ValueError: the name is not one of these.
    """
    base, suffix, rest = name.partition(_SUFFIX) if isinstance(name, str) else ("", "", "")
    if base not in list_vocabularies() or rest:
        accepted = ", ".join(list_vocabularies())
        raise ValueError(
            f"Unknown vocabulary {name!r}. Accepted: {accepted}; each also with {_SUFFIX!r} behind."
        )
    if base in _registered:
        return _registered[base]
    class_names, synonyms = _published()[base]["names"], _published()[base]["synonyms"]
    if not suffix:
        return tuple(class_names)
    return tuple(
        SYNONYM_SEPARATOR.join([name, synonyms[name]]) if name in synonyms else name
        for name in class_names
    )


def read_vocabulary(vocabulary: Sequence[str] | str | os.PathLike[str]) -> tuple[str, ...]:
    """Class names in any form in which a person may give them.

    Args:
        vocabulary: a list or tuple of names; the name of one of our vocabularies, see
            :func:`get_vocabulary`; or the path of a text file in UTF-8, see :func:`parse_words`.
            A name of a list may hold synonyms, as in "sofa, couch".

    Raises:
        ValueError: neither of these, no names, an empty name or synonym, or a name that is given
            twice.
    """
    if not isinstance(vocabulary, str | os.PathLike):
        return _refuse_repeated(validate_class_names(vocabulary))
    text = os.fspath(vocabulary)
    if text.partition(_SUFFIX)[0] in list_vocabularies():
        return get_vocabulary(text)
    try:
        return parse_words([Path(text).expanduser().read_text(encoding="utf-8-sig")])
    except OSError as error:
        raise ValueError(
            f"The vocabulary {text!r} is neither a file of names that can be read "
            f"({error.strerror}) nor one of ours ({', '.join(list_vocabularies())}). Give words as "
            'a list, as in ["cat", "sofa"].'
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"The file of names {text!r} is not text in UTF-8: save it so.") from error
    except ValueError as error:
        raise ValueError(f"The file of names {text!r} cannot be used: {error}") from error


def parse_words(texts: Sequence[str]) -> tuple[str, ...]:
    """Class names as people type them: commas or lines between classes, slashes between synonyms.

    Args:
        texts: arguments of a command line, or one text. Where one of several ends in a comma, they
            are one text that was not quoted; otherwise each is a class or several.

    >>> parse_words(["sky, sofa / couch"])
    ('sky', 'sofa, couch')
    >>> parse_words(["traffic", "light,", "sky"])
    ('traffic light', 'sky')
    >>> parse_words(["traffic light", "sky"])
    ('traffic light', 'sky')

    Raises:
        ValueError: no words, or a class that is given twice.
    """
    is_one_text = any(text.strip().endswith(",") or text.strip() == "," for text in texts[:-1])
    text = (" " if is_one_text else ",").join(texts)
    names = [_join_synonyms(part) for part in re.split(r"[,\n]", text)]
    return _refuse_repeated(validate_class_names([name for name in names if name]))


def _join_synonyms(text: str) -> str:
    words = (" ".join(word.split()) for word in text.split("/"))
    return SYNONYM_SEPARATOR.join(word for word in words if word)


def _refuse_repeated(names: tuple[str, ...]) -> tuple[str, ...]:
    folded = [name.strip().casefold() for name in names]
    repeated = sorted({name for name in folded if folded.count(name) > 1})
    if repeated:
        raise ValueError(f"Given twice: {', '.join(map(repr, repeated))}. Give each class once.")
    return names


def vocabulary_of_dataset(dataset_name: str, variant: str = "") -> tuple[str, ...]:
    """Return the class names to evaluate a registered data set with.

    Args:
        dataset_name: a data set with ``stuff_classes`` in Detectron2's MetadataCatalog.
        variant: "" for these names, "synonyms" for those with synonyms of the vocabulary that the
            metadata names as ``vocabulary``; the values of ``TEST.VOCABULARY``.

    Returns:
        The class names in the order of the train ids.

    Raises:
        ValueError: an unknown variant or data set, a data set without class names, or one that has
            no vocabulary with synonyms.
    """
    if variant not in VARIANTS:
        accepted = ", ".join(map(repr, VARIANTS))
        raise ValueError(f"TEST.VOCABULARY is {variant!r}; it must be one of {accepted}.")
    if dataset_name not in MetadataCatalog:
        raise ValueError(
            f"The data set {dataset_name!r} is not registered; import pixelclip for its data sets, "
            "or register yours first."
        )
    metadata = MetadataCatalog.get(dataset_name)
    class_names, vocabulary = metadata.get("stuff_classes"), metadata.get("vocabulary")
    if not class_names:
        raise ValueError(
            f"The data set {dataset_name!r} has no class names: set stuff_classes in its metadata."
        )
    if not variant:
        return tuple(class_names)
    if not _published().get(vocabulary, {}).get("synonyms"):
        raise ValueError(
            f"The data set {dataset_name!r} has no vocabulary with synonyms. Use '' for its own "
            'class names, and write synonyms into these, as in "sofa, couch".'
        )
    return get_vocabulary(vocabulary + _SUFFIX)


def validate_class_names(names: Sequence[str]) -> tuple[str, ...]:
    """Check the class names of an open vocabulary and return them unchanged.

    Args:
        names: a list or tuple of class names; a name may hold synonyms, as in "sofa, couch".

    Returns:
        The same names in the same order, blanks and upper case kept.

    Raises:
        ValueError: ``names`` is not a list or tuple of strings, is empty, or holds an empty name or
            an empty synonym. The text says which one and what to do.
    """
    if not isinstance(names, Sequence) or isinstance(names, str):
        raise ValueError(
            f"Class names must be a list or tuple of strings, got {type(names).__name__} "
            f'{names!r}. Pass for example ["cat", "dog"].'
        )
    if not names:
        raise ValueError('The list of class names is empty. Pass at least one, as in ["cat"].')
    for index, name in enumerate(names):
        _validate_class_name(index, name)
    return tuple(names)


def _validate_class_name(index: int, name: object) -> None:
    if not isinstance(name, str):
        raise ValueError(
            f"Class name {index} must be a string, got {type(name).__name__} {name!r}. "
            "Replace it by the name in words."
        )
    if not name.strip():
        raise ValueError(f"Class name {index} is empty: {name!r}. Remove it or give it a name.")
    if not all(synonym.strip() for synonym in name.split(SYNONYM_SEPARATOR)):
        raise ValueError(
            f"Class name {index} has an empty synonym: {name!r}. Synonyms are separated by a comma "
            'and a blank, as in "sofa, couch"; remove the superfluous comma.'
        )
