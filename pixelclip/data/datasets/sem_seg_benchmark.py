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
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata

from pixelclip.data.vocabularies import get_vocabulary

IGNORE_LABEL = 255

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SemSegBenchmark:
    """The files and the vocabulary of one benchmark.

    Attributes:
        name: the name in Detectron2's DatasetCatalog.
        vocabulary: a name for :func:`pixelclip.data.vocabularies.get_vocabulary`.
        num_images: how many images the official test set has.
        image_folder: folder of the ``.jpg`` images, below the root.
        label_folder: folder of the prepared label PNGs (train ids, 255 is void), below the root.
        image_list: text file below the root with one image name per line, without extension;
            None where the test set is every image of the folder.
        prepare_command: the command that fills ``label_folder``.
    """

    name: str
    vocabulary: str
    num_images: int
    image_folder: str
    label_folder: str
    image_list: str | None
    prepare_command: str


def datasets_root() -> Path:
    """Return the folder of all benchmarks: ``$DETECTRON2_DATASETS``, or ``datasets`` if not set."""
    return Path(os.environ.get("DETECTRON2_DATASETS") or "datasets").expanduser()


def list_names(folder: Path, suffix: str) -> set[str]:
    """Return the names, without the suffix, of a folder's visible files that end in ``suffix``."""
    names = (entry for entry in os.listdir(folder) if not entry.startswith("."))
    return {name.removesuffix(suffix) for name in names if name.endswith(suffix)}


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
    names = sorted(list_names(folder, ".jpg"))
    if not names:
        raise ValueError(f"{benchmark.name}: no .jpg image in {folder}. {_mend_root(root)}")
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
    _require_images(benchmark, root)
    _require_labels(benchmark, root)
    names = list_image_names(benchmark, root)
    images, labels = root / benchmark.image_folder, root / benchmark.label_folder
    _require_files(benchmark, names, images, ".jpg", _mend_root(root))
    _require_files(benchmark, names, labels, ".png", _mend_labels(benchmark, root))
    if len(names) != benchmark.num_images:
        logger.warning(
            "%s: %d images in %s instead of the official %d; the figures are not comparable.",
            benchmark.name,
            len(names),
            images,
            benchmark.num_images,
        )
    return [
        {"file_name": str(images / f"{name}.jpg"), "sem_seg_file_name": str(labels / f"{name}.png")}
        for name in names
    ]


class BenchmarkMetadata(Metadata):
    """Detectron2's metadata with folders that follow the environment.

    Detectron2 fixes ``image_root`` and ``sem_seg_root`` when a data set is registered, which is the
    time of import here; as properties they are right whenever they are read.
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


def register_sem_seg_benchmark(benchmark: SemSegBenchmark) -> None:
    """Register a benchmark with Detectron2, unless its name is taken.

    The metadata holds ``stuff_classes``, ``evaluator_type`` "sem_seg", ``ignore_label`` 255,
    ``image_root``, ``sem_seg_root`` and the ``benchmark`` itself. No disk is touched.

    Args:
        benchmark: what to register. A name that is registered already stays what it is: a second
            import changes nothing, and somebody's own data set is not replaced.
    """
    if benchmark.name in DatasetCatalog:
        logger.info("%s is registered already and stays as it is.", benchmark.name)
        return
    DatasetCatalog.register(benchmark.name, lambda: load_sem_seg_benchmark(benchmark))
    MetadataCatalog[benchmark.name] = BenchmarkMetadata(
        name=benchmark.name,
        benchmark=benchmark,
        stuff_classes=list(get_vocabulary(benchmark.vocabulary)),
        evaluator_type="sem_seg",
        ignore_label=IGNORE_LABEL,
    )


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


def _require_images(benchmark: SemSegBenchmark, root: Path) -> None:
    image_list = [] if benchmark.image_list is None else [benchmark.image_list]
    require_layout(benchmark.name, root, [benchmark.image_folder, *image_list])


def _require_labels(benchmark: SemSegBenchmark, root: Path) -> None:
    folder = root / benchmark.label_folder
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{benchmark.name}: no prepared labels, looked for {folder.absolute()}. "
            f"{_mend_labels(benchmark, root)}"
        )


def _require_files(
    benchmark: SemSegBenchmark, names: list[str], folder: Path, suffix: str, remedy: str
) -> None:
    present = list_names(folder, suffix)
    missing = [f"{name}{suffix}" for name in names if name not in present]
    if missing:
        first = ", ".join(missing[:5])
        raise FileNotFoundError(
            f"{benchmark.name}: {len(missing)} of {len(names)} files are missing in "
            f"{folder.absolute()}, the first are {first}. {remedy}"
        )


def _mend_root(root: Path) -> str:
    return (
        f"The root ({root}) comes from --root of the prepare commands or from "
        "$DETECTRON2_DATASETS; datasets/README.md shows the folders that it holds."
    )


def _mend_labels(benchmark: SemSegBenchmark, root: Path) -> str:
    return f"Run: {benchmark.prepare_command} --root {shlex.quote(str(root))}"


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
