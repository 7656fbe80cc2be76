"""A benchmark out of a folder of images, a folder of label PNGs and a list of class names."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

from pixelclip.data.datasets.sem_seg_benchmark import (
    IGNORE_LABEL,
    SemSegBenchmark,
    datasets_root,
    register_sem_seg_benchmark,
)
from pixelclip.data.image_mask_pairs import IMAGE_SUFFIXES
from pixelclip.data.vocabularies import validate_class_names
from pixelclip.utils.config_files import find_config

_REQUIRED_KEYS = {"name", "images", "labels", "classes"}
_OPTIONAL_KEYS = {"ignore_label"}


def register_sem_seg_folder(
    name: str,
    image_folder: str | os.PathLike[str],
    label_folder: str | os.PathLike[str],
    class_names: Sequence[str],
    ignore_label: int = IGNORE_LABEL,
) -> None:
    """Register labelled images as a data set that ``DATASETS.TEST`` takes.

    The image ``a/b.jpg`` (or .jpeg, .png) belongs to the label ``a/b.png``, an 8-bit grayscale or
    palette PNG of the same size. The folders are read when the data set is used.

    Args:
        name: the name in Detectron2's catalogs. To register the same again changes nothing.
        image_folder: folder of the images; a relative one is below ``$DETECTRON2_DATASETS``.
        label_folder: folder of the labels, likewise; another one than ``image_folder``.
        class_names: at most 255 names; the index is the value in the labels.
        ignore_label: value (0..255, none of a class) of the pixels that do not count.

    Raises:
        ValueError: an argument cannot be used, or the name belongs to another data set.
    """
    benchmark = SemSegBenchmark(
        name=name,
        vocabulary=validate_class_names(class_names),
        num_images=(),
        image_folder=os.path.expanduser(image_folder),
        label_folder=os.path.expanduser(label_folder),
        prepare_template=None,
        image_suffixes=IMAGE_SUFFIXES,
        ignore_label=ignore_label,
    )
    _check(benchmark)
    register_sem_seg_benchmark(benchmark)


def register_sem_seg_folders(paths: Iterable[str | os.PathLike[str]]) -> tuple[str, ...]:
    """Register the data set of each description file; the config key ``DATASETS.SEM_SEG_FOLDERS``.

    A description is a YAML or JSON file with the keys ``name``, ``images``, ``labels`` (the
    folders), ``classes`` (the list of names, or the path of a YAML or JSON file that holds it) and,
    optionally, ``ignore_label``. Relative paths are below ``$DETECTRON2_DATASETS``;
    :func:`register_sem_seg_folder` has the rest.

    Args:
        paths: the description files, relative to the current folder, or PixelCLIP's own; see
            :func:`pixelclip.utils.config_files.find_config`.

    Returns:
        The names of the data sets. None is registered if one of the descriptions cannot be read.

    Raises:
        FileNotFoundError: a description, or the file with its class names, does not exist.
        ValueError: a description cannot be used; the text names the file and the reason.
    """
    descriptions = {os.fspath(path): read_description(path) for path in paths}
    for path, description in descriptions.items():
        try:
            register_sem_seg_folder(**description)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return tuple(description["name"] for description in descriptions.values())


def read_description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a description file; see :func:`register_sem_seg_folders`.

    Returns:
        The arguments of :func:`register_sem_seg_folder`.

    Raises:
        FileNotFoundError, ValueError: as :func:`register_sem_seg_folders`.
    """
    content = _read_yaml(Path(find_config(path)))
    _check_keys(path, content)
    classes = content["classes"]
    if isinstance(classes, str):
        classes = _read_yaml(datasets_root() / Path(classes).expanduser())
    return {
        "name": content["name"],
        "image_folder": content["images"],
        "label_folder": content["labels"],
        "class_names": classes,
        "ignore_label": content.get("ignore_label", IGNORE_LABEL),
    }


def _check_keys(path: str | os.PathLike[str], content: Any) -> None:
    keys = set(content) if isinstance(content, dict) else set()
    if not _REQUIRED_KEYS <= keys <= _REQUIRED_KEYS | _OPTIONAL_KEYS:
        got = ", ".join(map(str, content)) if keys else type(content).__name__
        raise ValueError(
            f"{path}: got {got}; expected the keys {', '.join(sorted(_REQUIRED_KEYS))} and "
            f"optionally {', '.join(sorted(_OPTIONAL_KEYS))}."
        )
    for key in ("name", "images", "labels"):
        if not isinstance(content[key], str):
            raise ValueError(f"{path}: {key} is {content[key]!r}; expected a string.")


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path.absolute()} does not exist; it was named by DATASETS.SEM_SEG_FOLDERS, or by "
            "'classes' of a description there."
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as YAML or JSON: {error}") from error


def _check(benchmark: SemSegBenchmark) -> None:
    """Refuse values that no evaluation could use, and a name that is taken."""
    name, ignore_label = benchmark.name, benchmark.ignore_label
    num_classes = len(benchmark.class_names)
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"The name of the data set is {name!r}; expected a string.")
    if benchmark.image_folder == benchmark.label_folder:
        raise ValueError(f"{name}: images and labels must be in two folders, not in one.")
    if num_classes > 255:
        raise ValueError(f"{name}: {num_classes} classes; 8-bit labels hold at most 255.")
    is_integer = isinstance(ignore_label, int) and not isinstance(ignore_label, bool)
    if not is_integer or not num_classes <= ignore_label <= 255:
        raise ValueError(
            f"{name}: ignore_label is {ignore_label!r}; expected an integer that is no class, that "
            f"is, {num_classes}..255."
        )
    owner = MetadataCatalog.get(name).get("benchmark") if name in MetadataCatalog else None
    if name in DatasetCatalog and owner != benchmark:
        raise ValueError(f"{name}: another data set has this name; choose another one.")
