"""What a semantic segmentation benchmark is here: its folders, its vocabulary, its registration.

Nothing is read from disk before a data set is used; the root is looked up in the environment then.
"""

import logging
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.utils.logger import log_first_n

from pixelclip.data.vocabularies import get_vocabulary, validate_class_names
from pixelclip.utils.installation import find_config

IGNORE_LABEL = 255

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SemSegBenchmark:
    """The files and the vocabulary of one benchmark.

    An image and its label have the same path below their folders, up to the suffixes. Folders and
    the list are below the root, or absolute.

    Attributes:
        name: the name in Detectron2's DatasetCatalog.
        vocabulary: name of a vocabulary, or the class names themselves, by train id.
        num_images: the size of the official test set; several where its releases differ, or none.
        image_folder: folder of the images.
        label_folder: folder of the prepared label PNGs (train ids).
        prepare_template: shell command that prepares what the download lacks, with ``{root}`` for
            the root; None where the labels are used as they are.
        image_list: text file, one image name without suffix per line; None: every image there is.
        image_suffixes: ends of the images' file names, upper or lower case.
        label_suffix: end of the label PNGs' file names.
        ignore_label: value (0..255) of the pixels that do not count.
        background_index: train id of the class that is everything else; None for no such class.
        evaluator_type: Detectron2's name of the kind of evaluation.
    """

    name: str
    vocabulary: str | tuple[str, ...]
    num_images: tuple[int, ...]
    image_folder: str
    label_folder: str
    prepare_template: str | None
    image_list: str | None = None
    image_suffixes: tuple[str, ...] = (".jpg",)
    label_suffix: str = ".png"
    ignore_label: int = IGNORE_LABEL
    background_index: int | None = None
    evaluator_type: str = "sem_seg"

    @property
    def class_names(self) -> tuple[str, ...]:
        """The class names; the index is the train id."""
        if isinstance(self.vocabulary, str):
            return get_vocabulary(self.vocabulary)
        return self.vocabulary

    @property
    def prepare_command(self) -> str | None:
        """The prepare command for the root that the environment names."""
        return self.prepare_template and format_command(self.prepare_template, datasets_root())


class BenchmarkMetadata(Metadata):
    """Detectron2's metadata with folders that follow the environment, even after registration."""

    benchmark: SemSegBenchmark

    @property
    def image_root(self) -> str:
        """Folder of the images."""
        return str(datasets_root() / self.benchmark.image_folder)

    @property
    def sem_seg_root(self) -> str:
        """Folder of the prepared label PNGs."""
        return str(datasets_root() / self.benchmark.label_folder)

    # As Detectron2's Cityscapes and its evaluator call them.
    image_dir = image_root
    gt_dir = sem_seg_root


def datasets_root() -> Path:
    """Return the folder of all benchmarks: ``$DETECTRON2_DATASETS``, or ``datasets`` if not set."""
    return Path(os.environ.get("DETECTRON2_DATASETS") or "datasets").expanduser()


def format_command(template: str, root: Path) -> str:
    """Fill the root into the template of a prepare command, quoted for the shell if it must be."""
    return template.format(root=shlex.quote(str(root)))


def list_files(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Find the files in a folder, at any depth, that end in a suffix and are not hidden.

    Args:
        folder: where to look. A folder that does not exist holds no file.
        suffixes: ends of file names; upper and lower case are the same.

    Returns:
        The path of each file by its name: its path below ``folder``, with "/", without suffix.

    Raises:
        ValueError: two files have the same name, as a.jpg and a.png.
    """
    files: dict[str, Path] = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        suffix = next((s for s in suffixes if name.lower().endswith(s.lower())), None)
        if suffix is None or name.startswith(".") or "/." in name:
            continue
        name = name[: -len(suffix)]
        if name in files:
            raise ValueError(f"{path} and {files[name].name} have one name; remove one of them")
        files[name] = path
    return files


def require_layout(name: str, root: Path, paths: Sequence[str], command: str | None = None) -> None:
    """Refuse a root that lacks one of the paths below it.

    Raises:
        FileNotFoundError: the text names the data set, what was looked for, what is missing, and
            what to do: download it, then run the command that prepares the rest, if there is one.
    """
    missing = [path for path in paths if not (root / path).exists()]
    if missing:
        raise FileNotFoundError(
            f"{name}: not found below {root.absolute()}. Looked for {', '.join(paths)}; missing: "
            f"{', '.join(missing)}. datasets/README.md shows what the root (--root of the prepare "
            "commands, or $DETECTRON2_DATASETS) holds."
            + (f" After the download, run: {command}" if command else "")
        )


def list_image_names(benchmark: SemSegBenchmark, root: Path) -> list[str]:
    """Return the images of a benchmark as names without suffix: of its list, or sorted.

    Raises:
        OSError: the list or the folder cannot be read.
        ValueError: there is no image, or a line of the list is not a name or comes twice.
    """
    if benchmark.image_list is None:
        folder, suffixes = root / benchmark.image_folder, benchmark.image_suffixes
        names = sorted(list_files(folder, suffixes))
        if not names:
            raise ValueError(f"{benchmark.name}: no {' or '.join(suffixes)} image in {folder}")
        return names
    path = root / benchmark.image_list
    lines = path.read_text(errors="replace").split("\n")
    names = [line.strip() for line in lines if line.strip()]
    malformed = [name for name in names if not re.fullmatch(r"\w[\w.-]*", name)]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if not names or malformed or repeated:
        raise ValueError(
            f"{path}: expected one image name without suffix per line, each once; got "
            f"{len(names)} lines, malformed {malformed[:5]}, repeated {repeated[:5]}. "
            "Take the file of the official release."
        )
    return names


def list_records(benchmark: SemSegBenchmark) -> list[dict[str, str]]:
    """List the images of a prepared benchmark with their label files, in Detectron2's format.

    Unlike in Detectron2's ``load_sem_seg``, which evaluates the intersection of the two folders, a
    missing label is an error: a mean over fewer images is not the benchmark's.

    Returns:
        One dict per image of ``$DETECTRON2_DATASETS`` with ``file_name`` and
        ``sem_seg_file_name``.

    Raises:
        FileNotFoundError: a folder, the image list, an image or a label is missing; the text says
            which, and what to do.
        ValueError: the image list is malformed, or there is no image.
    """
    root, command = datasets_root(), benchmark.prepare_command
    paths = (benchmark.image_folder, benchmark.image_list, benchmark.label_folder)
    require_layout(benchmark.name, root, [path for path in paths if path], command)
    names, label_suffixes = list_image_names(benchmark, root), (benchmark.label_suffix,)
    images = _find_files(names, root / benchmark.image_folder, benchmark.image_suffixes)
    labels = _find_files(names, root / benchmark.label_folder, label_suffixes, command)
    return [
        {"file_name": str(image), "sem_seg_file_name": str(label)}
        for image, label in zip(images, labels, strict=True)
    ]


def load_sem_seg_benchmark(benchmark: SemSegBenchmark) -> list[dict[str, str]]:
    """List the records of a benchmark; log it where they are not as many as they should be."""
    records = list_records(benchmark)
    note = describe_count(benchmark.name, len(records), benchmark.num_images)
    if note:  # once, although a data set is loaded several times in a run
        log_first_n(logging.WARNING, note, name=__name__, key="message")
    return records


def describe_count(name: str, found: int, official: tuple[int, ...]) -> str:
    """Say that a number of images is not an official one; "" where it is, or none is known."""
    if not official or found in official:
        return ""
    words = " or ".join(map(str, official))
    return f"{name}: {found} images instead of the official {words}; results are not comparable."


def register_sem_seg_benchmark(benchmark: SemSegBenchmark) -> None:
    """Register a benchmark with Detectron2, unless its name is taken; no disk is touched.

    The metadata holds ``stuff_classes``, ``evaluator_type``, ``ignore_label``, ``image_root``,
    ``sem_seg_root`` and the ``benchmark`` itself; ``vocabulary`` where the class names are one of
    ours, and ``background_index`` where there is a background class.
    """
    if benchmark.name in DatasetCatalog:
        logger.info("%s is registered already and stays as it is.", benchmark.name)
        return
    DatasetCatalog.register(benchmark.name, lambda: load_sem_seg_benchmark(benchmark))
    metadata = BenchmarkMetadata(
        name=benchmark.name,
        benchmark=benchmark,
        stuff_classes=list(benchmark.class_names),
        evaluator_type=benchmark.evaluator_type,
        ignore_label=benchmark.ignore_label,
    )
    if isinstance(benchmark.vocabulary, str):
        metadata.vocabulary = benchmark.vocabulary
    if benchmark.background_index is not None:
        metadata.background_index = benchmark.background_index
    MetadataCatalog[benchmark.name] = metadata


def register_sem_seg_folder(
    name: str,
    image_folder: str | os.PathLike[str],
    label_folder: str | os.PathLike[str],
    class_names: Sequence[str],
    ignore_label: int = IGNORE_LABEL,
) -> None:
    """Register labeled images as a data set that ``DATASETS.TEST`` takes.

    The image ``a/b.jpg`` (or .jpeg, .png) belongs to the label ``a/b.png``, an 8-bit grayscale or
    palette PNG of the same size. The folders are read when the data set is used.

    Args:
        name: the name in Detectron2's catalogs. To register the same again changes nothing.
        image_folder: folder of the images; a relative one is below ``$DETECTRON2_DATASETS``.
        label_folder: folder of the labels, likewise; another one than ``image_folder``.
        class_names: at most 255 names; the index is the value in the labels.
        ignore_label: value of the pixels that do not count, at most 255 and not a class's.

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
        image_suffixes=(".jpg", ".jpeg", ".png"),
        ignore_label=ignore_label,
    )
    _check_folder(benchmark, len(class_names))
    register_sem_seg_benchmark(benchmark)


def register_sem_seg_folders(paths: Iterable[str | os.PathLike[str]]) -> tuple[str, ...]:
    """Register the data set of each description file; the config key ``DATASETS.SEM_SEG_FOLDERS``.

    A description is a YAML or JSON file with the keys ``name``, ``images``, ``labels`` (the
    folders), ``classes`` (the list of names, or the path of a YAML or JSON file that holds it) and,
    optionally, ``ignore_label``, for :func:`register_sem_seg_folder`.

    Args:
        paths: the files, relative to the current folder; or PixelCLIP's own, in configs/datasets.

    Returns:
        The names of the data sets. None is registered if one of the descriptions cannot be read.

    Raises:
        FileNotFoundError: a description, or the file with its class names, does not exist.
        ValueError: a description cannot be used; the text names the file and the reason.
    """
    descriptions = {os.fspath(path): _read_description(path) for path in paths}
    for path, description in descriptions.items():
        try:
            register_sem_seg_folder(**description)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return tuple(description["name"] for description in descriptions.values())


def _read_description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a description file as the arguments of :func:`register_sem_seg_folder`."""
    content = _read_yaml(Path(find_config(path)))
    keys = set(content) if isinstance(content, dict) else set()
    if keys - {"ignore_label"} != {"name", "images", "labels", "classes"}:
        got = ", ".join(map(str, content)) if keys else type(content).__name__
        raise ValueError(
            f"{path}: got {got}; expected the keys name, images, labels, classes and optionally "
            "ignore_label."
        )
    for key in ("name", "images", "labels"):
        if not isinstance(content[key], str):
            raise ValueError(f"{path}: {key} is {content[key]!r}; expected a string.")
    if isinstance(content["classes"], str):
        content["classes"] = _read_yaml(datasets_root() / Path(content["classes"]).expanduser())
    arguments = {"images": "image_folder", "labels": "label_folder", "classes": "class_names"}
    return {arguments.get(key, key): value for key, value in content.items()}


def _check_folder(benchmark: SemSegBenchmark, num_classes: int) -> None:
    """Refuse a user's values that no evaluation could use, and a name that is taken."""
    name, ignore_label = benchmark.name, benchmark.ignore_label
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"The name of the data set is {name!r}; expected a string.")
    if benchmark.image_folder == benchmark.label_folder:
        raise ValueError(f"{name}: images and labels must be in two folders, not in one.")
    if num_classes > 255:
        raise ValueError(f"{name}: {num_classes} classes; 8-bit labels hold at most 255.")
    if type(ignore_label) is not int or not num_classes <= ignore_label <= 255:
        expected = f"expected an integer of {num_classes}..255, which is not a class's"
        raise ValueError(f"{name}: ignore_label is {ignore_label!r}; {expected}.")
    owner = MetadataCatalog.get(name).get("benchmark") if name in MetadataCatalog else None
    if name in DatasetCatalog and owner != benchmark:
        raise ValueError(f"{name}: another data set has this name; choose another one.")


def _find_files(
    names: Sequence[str], folder: Path, suffixes: Sequence[str], command: str | None = None
) -> list[Path]:
    """Find the file of each name, or say which are missing and which command makes them, if any."""
    files = list_files(folder, suffixes)
    missing = [name + "|".join(suffixes) for name in names if name not in files]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(names)} files are missing in {folder.absolute()}, the first "
            f"are {', '.join(missing[:5])}. {f'Run: {command}' if command else 'Add them there.'}"
        )
    return [files[name] for name in names]


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as YAML or JSON: {error}") from error
