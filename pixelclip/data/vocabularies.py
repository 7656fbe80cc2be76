"""Class names of the benchmarks, and the check of a user's own class names.

The names decide the text features and with them the mIoU, so they are kept letter by letter as the
benchmarks' published evaluations write them. Beside each vocabulary there is one with synonyms,
whose name ends in "_synonyms"; it begins each entry with the published name.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from detectron2.data import MetadataCatalog

from pixelclip.data.synonyms import SYNONYMS
from pixelclip.toy.scenes import CLASS_NAMES as TOY_CLASS_NAMES

# What the text classifier splits a name into synonyms at, as in "sofa, couch".
SYNONYM_SEPARATOR = ", "
SYNONYMS_VARIANT = "synonyms"
VARIANTS = ("", SYNONYMS_VARIANT)
_SUFFIX = f"_{SYNONYMS_VARIANT}"

# fmt: off
_VOCABULARIES: dict[str, tuple[str, ...]] = {
    # 80 things and 91 stuff classes, in the order of the category ids
    "coco_stuff_171": (
        "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
        "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat",
        "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack",
        "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball",
        "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket",
        "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
        "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair",
        "couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote",
        "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book",
        "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush", "banner", "blanket",
        "branch", "bridge", "building-other", "bush", "cabinet", "cage", "cardboard", "carpet",
        "ceiling-other", "ceiling-tile", "cloth", "clothes", "clouds", "counter", "cupboard",
        "curtain", "desk-stuff", "dirt", "door-stuff", "fence", "floor-marble", "floor-other",
        "floor-stone", "floor-tile", "floor-wood", "flower", "fog", "food-other", "fruit",
        "furniture-other", "grass", "gravel", "ground-other", "hill", "house", "leaves", "light",
        "mat", "metal", "mirror-stuff", "moss", "mountain", "mud", "napkin", "net", "paper",
        "pavement", "pillow", "plant-other", "plastic", "platform", "playingfield", "railing",
        "railroad", "river", "road", "rock", "roof", "rug", "salad", "sand", "sea", "shelf",
        "sky-other", "skyscraper", "snow", "solid-other", "stairs", "stone", "straw",
        "structural-other", "table", "tent", "textile-other", "towel", "tree", "vegetable",
        "wall-brick", "wall-concrete", "wall-other", "wall-panel", "wall-stone", "wall-tile",
        "wall-wood", "water-other", "waterdrops", "window-blind", "window-other", "wood",
    ),
    # in the order of the label values 1..150; "bed " has a trailing blank as published
    "ade20k_150": (
        "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed ", "windowpane",
        "grass", "cabinet", "sidewalk", "person", "earth", "door", "table", "mountain", "plant",
        "curtain", "chair", "car", "water", "painting", "sofa", "shelf", "house", "sea", "mirror",
        "rug", "field", "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp", "bathtub",
        "railing", "cushion", "base", "box", "column", "signboard", "chest of drawers", "counter",
        "sand", "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path", "stairs",
        "runway", "case", "pool table", "pillow", "screen door", "stairway", "river", "bridge",
        "bookcase", "blind", "coffee table", "toilet", "flower", "book", "hill", "bench",
        "countertop", "stove", "palm", "kitchen island", "computer", "swivel chair", "boat", "bar",
        "arcade machine", "hovel", "bus", "towel", "light", "truck", "tower", "chandelier",
        "awning", "streetlight", "booth", "television receiver", "airplane", "dirt track",
        "apparel", "pole", "land", "bannister", "escalator", "ottoman", "bottle", "buffet",
        "poster", "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer",
        "plaything", "swimming pool", "stool", "barrel", "basket", "waterfall", "tent", "bag",
        "minibike", "cradle", "oven", "ball", "food", "step", "tank", "trade name", "microwave",
        "pot", "animal", "bicycle", "lake", "dishwasher", "screen", "blanket", "sculpture", "hood",
        "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier", "crt screen", "plate",
        "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag",
    ),
    # in the order of the category ids of the 59 most frequent classes
    "pascal_context_59": (
        "aeroplane", "bag", "bed", "bedclothes", "bench", "bicycle", "bird", "boat", "book",
        "bottle", "building", "bus", "cabinet", "car", "cat", "ceiling", "chair", "cloth",
        "computer", "cow", "cup", "curtain", "dog", "door", "fence", "floor", "flower", "food",
        "grass", "ground", "horse", "keyboard", "light", "motorbike", "mountain", "mouse", "person",
        "plate", "platform", "pottedplant", "road", "rock", "sheep", "shelves", "sidewalk", "sign",
        "sky", "snow", "sofa", "diningtable", "track", "train", "tree", "truck", "tvmonitor",
        "wall", "water", "window", "wood",
    ),
    # in the order of the train ids
    "cityscapes_19": (
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
        "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
        "motorcycle", "bicycle",
    ),
    # in the order of the label values 1..20; no background
    "pascal_voc_20": (
        "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
        "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
        "train", "tvmonitor",
    ),
}
# fmt: on
# With everything else as a class of its own, the last one.
_VOCABULARIES["pascal_context_60"] = (*_VOCABULARIES["pascal_context_59"], "background")
_VOCABULARIES["pascal_voc_21"] = (*_VOCABULARIES["pascal_voc_20"], "background")
# The embedded world's.
_VOCABULARIES["toy_scenes_20"] = TOY_CLASS_NAMES


def get_vocabulary(name: str) -> tuple[str, ...]:
    """Return the class names of a benchmark in the order of its train ids.

    Args:
        name: "coco_stuff_171", "ade20k_150", "pascal_context_59", "cityscapes_19",
            "pascal_voc_20", or "pascal_context_60" and "pascal_voc_21", whose last class is
            "background", and "toy_scenes_20"; or one of these with "_synonyms" behind it for the
            names followed by synonyms, as in "couch, sofa, settee".

    Returns:
        As many names as the number in ``name`` says; the index is the train id.

    Raises:
        ValueError: the name is not one of these.
    """
    published, suffix, rest = name.partition(_SUFFIX) if isinstance(name, str) else ("", "", "")
    if published not in _VOCABULARIES or rest:
        accepted = ", ".join(_VOCABULARIES)
        raise ValueError(
            f"Unknown vocabulary {name!r}. Accepted: {accepted}; each also with {_SUFFIX!r} behind."
        )
    class_names = _VOCABULARIES[published]
    if not suffix:
        return class_names
    synonyms = SYNONYMS.get(published, {})
    return tuple(
        SYNONYM_SEPARATOR.join([name, synonyms[name]]) if name in synonyms else name
        for name in class_names
    )


def read_vocabulary(vocabulary: Sequence[str] | str | os.PathLike[str]) -> tuple[str, ...]:
    """Class names out of any of the ways in which a person may give them.

    Args:
        vocabulary: a list or tuple of names; the name of one of our vocabularies, see
            :func:`get_vocabulary`; or the path of a text file in UTF-8 with a name in each line.
            Empty lines are passed over; a name may hold synonyms, as in "sofa, couch".

    Raises:
        ValueError: neither of these, no names, or an empty name or synonym.
    """
    if not isinstance(vocabulary, str | os.PathLike):
        return validate_class_names(vocabulary)
    text = os.fspath(vocabulary)
    if text.partition(_SUFFIX)[0] in _VOCABULARIES:
        return get_vocabulary(text)
    try:
        lines = Path(text).expanduser().read_text(encoding="utf-8-sig").splitlines()
        return validate_class_names([line.strip() for line in lines if line.strip()])
    except OSError as error:
        raise ValueError(
            f"The vocabulary {text!r} is neither a file of names that can be read "
            f"({error.strerror}) nor one of ours ({', '.join(_VOCABULARIES)}). Give words as a "
            'list, as in ["cat", "sofa"].'
        ) from error
    except ValueError as error:  # not UTF-8, or of validate_class_names
        raise ValueError(f"The file of names {text!r} cannot be used: {error}") from error


def vocabulary_of_dataset(dataset_name: str, variant: str = "") -> tuple[str, ...]:
    """Return the class names to evaluate a registered data set with.

    Choose the vocabulary with synonyms by ``variant="synonyms"``, which is what the config key
    ``TEST.VOCABULARY`` takes.

    Args:
        dataset_name: a data set with ``stuff_classes`` in Detectron2's MetadataCatalog.
        variant: "" for these names, "synonyms" for the names with synonyms. The data set's metadata
            must then have the name of one of our vocabularies as ``vocabulary``.

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
    if vocabulary not in SYNONYMS:
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
        ValueError: ``names`` is no list or tuple of strings, is empty, or holds an empty name or
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
