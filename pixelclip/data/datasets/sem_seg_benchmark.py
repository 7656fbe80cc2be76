"""What a semantic segmentation benchmark is here: its folders, its vocabulary, its registration.

A benchmark module names its files in a :class:`SemSegBenchmark`; everything that the benchmarks
have in common is in this file. Nothing is read from disk before a data set is asked for, and the
root folder is looked up in the environment at that moment.
"""

import logging
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.utils.logger import log_first_n

from pixelclip.data.vocabularies import get_vocabulary
from pixelclip.utils.command_names import runnable_command

IGNORE_LABEL = 255

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SemSegBenchmark:
    """The files and the vocabulary of one benchmark.

    An image and its label have the same path below their folders, up to the suffixes.

    Attributes:
        name: the name in Detectron2's DatasetCatalog.
        vocabulary: a name for :func:`pixelclip.data.vocabularies.get_vocabulary`, or the class
            names themselves, in the order of the train ids.
        num_images: how many images the official test set has; several numbers where its releases
            differ, none where nobody has said how many there should be.
        image_folder: folder of the images, below the root (or absolute).
        label_folder: folder of the prepared label PNGs (train ids), below the root (or absolute).
        prepare_template: the shell command that fills ``label_folder``, with ``{root}`` for the
            root; None where the labels are used as they are.
        image_list: text file below the root with one image name per line, without suffix;
            None where the test set is every image of the folder.
        has_prepared_list: whether that command makes the image list, too.
        has_prepared_images: whether it makes the images, too.
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
    has_prepared_list: bool = False
    has_prepared_images: bool = False
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

    @property
    def official_count(self) -> str:
        """The official number of images in words, "" where there is none."""
        return " or ".join(map(str, self.num_images))


def datasets_root() -> Path:
    """Return the folder of all benchmarks: ``$DETECTRON2_DATASETS``, or ``datasets`` if not set."""
    return Path(os.environ.get("DETECTRON2_DATASETS") or "datasets").expanduser()


def list_files(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Find the files with one of the suffixes in a folder and the folders in it.

    Hidden files and folders (their names begin with a point) do not count.

    Args:
        folder: where to look. A folder that does not exist holds no file.
        suffixes: ends of file names; upper and lower case are the same.

    Returns:
        The path of each file by its name: its path below ``folder``, with "/", without suffix.

    Raises:
        ValueError: two files have the same name, as a.jpg and a.png.
    """
    files: dict[str, Path] = {}
    for parent, folders, entries in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for entry in entries:
            suffix = next((s for s in suffixes if entry.lower().endswith(s.lower())), None)
            if suffix is None or entry.startswith("."):
                continue
            path = Path(parent, entry)
            name = path.relative_to(folder).as_posix()[: -len(suffix)]
            if name in files:
                raise ValueError(f"{path} and {files[name].name} have one name; remove one of them")
            files[name] = path
    return files


def list_image_names(benchmark: SemSegBenchmark, root: Path) -> list[str]:
    """Return which images a benchmark consists of, as names without extension.

    Args:
        benchmark: what to list.
        root: the folder of all benchmarks.

    Returns:
        The lines of the image list, in its order; without a list, the images of the folder, sorted.

    Raises:
        OSError: the list or the folder cannot be read.
        ValueError: there is no image, or a line of the list is not a name or comes twice.
    """
    if benchmark.image_list is not None:
        return _read_image_list(root / benchmark.image_list)
    folder = root / benchmark.image_folder
    names = sorted(list_files(folder, benchmark.image_suffixes))
    if not names:
        suffixes = " or ".join(benchmark.image_suffixes)
        raise ValueError(f"{benchmark.name}: no {suffixes} image in {folder}. {_mend_root(root)}")
    return names


def load_sem_seg_benchmark(benchmark: SemSegBenchmark) -> list[dict[str, str]]:
    """List the images of a prepared benchmark with their label files, in Detectron2's format.

    Unlike Detectron2's ``load_sem_seg``, which evaluates the intersection of the two folders, a
    missing label is an error: a mean over fewer images is not the benchmark's figure.

    Args:
        benchmark: what to load, from ``$DETECTRON2_DATASETS``.

    Returns:
        One dict per image with ``file_name`` and ``sem_seg_file_name``.

    Raises:
        FileNotFoundError: a folder, the image list, an image or a label is missing; the text says
            which, and what to do.
        ValueError: the image list is malformed, or there is no image.
    """
    root = datasets_root()
    pairs = find_label_pairs(benchmark, root)
    if benchmark.num_images and len(pairs) not in benchmark.num_images:
        log_first_n(
            logging.WARNING,
            f"{benchmark.name}: {len(pairs)} images in {root / benchmark.image_folder} instead of "
            f"the official {benchmark.official_count}; the figures are not comparable.",
            name=__name__,
            key="message",  # once, although a data set is loaded several times in a run
        )
    return [
        {"file_name": str(image), "sem_seg_file_name": str(label)}
        for image, label in pairs.values()
    ]


def find_label_pairs(benchmark: SemSegBenchmark, root: Path) -> dict[str, tuple[Path, Path]]:
    """Find the image and the prepared label of every name of a benchmark.

    Args:
        benchmark: what to find.
        root: the folder of all benchmarks.

    Returns:
        The paths of image and label by name, in the order of :func:`list_image_names`.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_sem_seg_benchmark`.
    """
    _require_published(benchmark, root)
    _require_prepared(benchmark, root)
    names = list_image_names(benchmark, root)
    folder, suffixes = root / benchmark.image_folder, benchmark.image_suffixes
    images = require_files(benchmark.name, names, folder, suffixes, _mend_root(root))
    folder, suffixes = root / benchmark.label_folder, (benchmark.label_suffix,)
    labels = require_files(benchmark.name, names, folder, suffixes, _mend_labels(benchmark, root))
    return {name: (images[name], labels[name]) for name in names}


class BenchmarkMetadata(Metadata):
    """Detectron2's metadata with folders that follow the environment.

    Detectron2 fixes the folders when a data set is registered, which is the time of import here; as
    properties they are right whenever they are read.
    """

    benchmark: SemSegBenchmark

    @property
    def image_root(self) -> str:
        """Folder of the images."""
        return str(datasets_root() / self.benchmark.image_folder)

    @property
    def sem_seg_root(self) -> str:
        """Folder of the prepared label PNGs."""
        return str(datasets_root() / self.benchmark.label_folder)

    @property
    def image_dir(self) -> str:
        """Folder of the images, under the name that Detectron2 gives it for Cityscapes."""
        return self.image_root

    @property
    def gt_dir(self) -> str:
        """Folder of the labels, under the name that Detectron2's Cityscapes evaluator asks for."""
        return self.sem_seg_root


def register_sem_seg_benchmark(benchmark: SemSegBenchmark) -> None:
    """Register a benchmark with Detectron2, unless its name is taken.

    The metadata holds ``stuff_classes``, ``evaluator_type``, ``ignore_label``, ``image_root``,
    ``sem_seg_root`` and the ``benchmark`` itself; ``vocabulary`` where the class names are one of
    ours, and ``background_index`` where there is a background class. No disk is touched.

    Args:
        benchmark: what to register. A name that is registered already stays what it is: a second
            import changes nothing, and somebody's own data set is not replaced.
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


def require_layout(name: str, root: Path, paths: Iterable[str]) -> None:
    """Refuse a root that lacks a folder or file of the published layout.

    Args:
        name: the data set, for the message.
        root: the folder of all benchmarks.
        paths: what must exist below the root.

    Raises:
        FileNotFoundError: the text lists what was looked for and what is missing.
    """
    paths = list(paths)
    missing = [path for path in paths if not (root / path).exists()]
    if missing:
        raise FileNotFoundError(
            f"{name}: not found below {root.absolute()}. Looked for {', '.join(paths)}; "
            f"missing: {', '.join(missing)}. {_mend_root(root)}"
        )


def require_files(
    dataset: str, names: Iterable[str], folder: Path, suffixes: Sequence[str], remedy: str
) -> dict[str, Path]:
    """Find the files of a folder, and refuse it where one of those that must be there is missing.

    Args:
        dataset: the data set, for the message.
        names: what must be there, as :func:`list_files` names files.
        folder: where to look.
        suffixes: ends of the file names.
        remedy: what the user should do, in a sentence.

    Returns:
        The path of each file by its name; more than those of ``names`` where the folder has more.

    Raises:
        FileNotFoundError: the text counts the missing files and names the first.
        ValueError: two files have the same name.
    """
    present = list_files(folder, suffixes)
    names = list(names)
    missing = [name + "|".join(suffixes) for name in names if name not in present]
    if missing:
        raise FileNotFoundError(
            f"{dataset}: {len(missing)} of {len(names)} files are missing in "
            f"{folder.absolute()}, the first are {', '.join(missing[:5])}. {remedy}"
        )
    return present


def format_command(template: str, root: Path) -> str:
    """Fill the root into the template of a prepare command, quoted for the shell if it must be."""
    return runnable_command(template).format(root=shlex.quote(str(root)))


def _require_published(benchmark: SemSegBenchmark, root: Path) -> None:
    """Require what the download holds."""
    paths = [] if benchmark.has_prepared_images else [benchmark.image_folder]
    if benchmark.image_list is not None and not benchmark.has_prepared_list:
        paths.append(benchmark.image_list)
    require_layout(benchmark.name, root, paths)


def _require_prepared(benchmark: SemSegBenchmark, root: Path) -> None:
    """Require what the prepare command makes."""
    prepared = [benchmark.label_folder]
    if benchmark.has_prepared_images:
        prepared.insert(0, benchmark.image_folder)
    if benchmark.image_list is not None and benchmark.has_prepared_list:
        prepared.append(benchmark.image_list)
    for path in prepared:
        if not (root / path).exists():
            raise FileNotFoundError(
                f"{benchmark.name} is not prepared, looked for {(root / path).absolute()}. "
                f"{_mend_labels(benchmark, root)}"
            )


def _mend_root(root: Path) -> str:
    return (
        f"The root ({root}) comes from --root of the prepare commands or from "
        "$DETECTRON2_DATASETS; datasets/README.md shows the folders that it holds."
    )


def _mend_labels(benchmark: SemSegBenchmark, root: Path) -> str:
    if benchmark.prepare_template is None:
        return "Put a label of the same name beside the others for each image."
    return f"Run: {format_command(benchmark.prepare_template, root)}"


def _read_image_list(path: Path) -> list[str]:
    lines = (line.strip() for line in path.read_text(errors="replace").splitlines())
    names = [line for line in lines if line]
    malformed = [name for name in names if not re.fullmatch(r"\w[\w.-]*", name)]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if not names or malformed or repeated:
        raise ValueError(
            f"{path}: expected one image name without extension per line, each once; got "
            f"{len(names)} lines, malformed {malformed[:5]}, repeated {repeated[:5]}. "
            "Take the file of the official release."
        )
    return names
