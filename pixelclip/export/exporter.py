"""Export a model, and let only a file stay that gives the model's own numbers."""

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelclip.export.formats import ExportedModel, get_format, trace
from pixelclip.export.graphs import Graph, make_graph
from pixelclip.export.metadata import describe_export
from pixelclip.meta_arch import PixelCLIP
from pixelclip.utils.atomic_write import atomic_writer

KINDS = ("encoder", "classifier")

# Largest difference between a number of the file's and of the model's, both in -1..1.
TOLERANCE = 1e-4

_BATCHES = (1, 3)
# Vocabulary of the check where the file has none.
_WORDS_OF_CHECK = ("sky", "grass", "house")


class ExportError(RuntimeError):
    """An exported file does not give the model's numbers; it has been removed."""


@dataclass(frozen=True)
class Check:
    """A comparison of an exported file with the model.

    Attributes:
        shape: (B, 3, H, W) of the pictures.
        difference: the largest one of any number, in cosines or components of unit vectors.
    """

    shape: tuple[int, ...]
    difference: float


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how it compared.

    Attributes:
        path: of the file.
        num_bytes: of the file.
        checks: one for each batch and picture size.
    """

    path: Path
    num_bytes: int
    checks: tuple[Check, ...]

    @property
    def largest_difference(self) -> float:
        """Over all checks."""
        return max(check.difference for check in self.checks)


def export_model(
    model: PixelCLIP,
    kind: str,
    path: str | os.PathLike[str],
    class_names: Sequence[str] = (),
    test_sizes: tuple[int, int] = (640, 2560),
) -> ExportReport:
    """Write a part of a model as an ONNX or torch.export file, and run the file to check it.

    Both kinds take ``images`` (batch, 3, height, width) float32, RGB in 0..255, of any batch and
    size, and normalise and resize them themselves to ``MODEL.CLIP.RESOLUTION``:

    * "encoder" gives ``features`` (batch, h, w, d), L2-normalised, one vector per patch;
    * "classifier" gives ``scores`` (batch, classes, height, width), the cosines with
      ``class_names`` at ``MODEL.PIXELCLIP.TEST_FEATURE_SIZE``. Without names it also takes
      ``text_features`` (classes, d), such as :func:`save_text_features` writes.

    Args:
        model: moved to the CPU and into eval mode; its vocabulary is changed.
        kind: see above.
        path: ends in ``.onnx`` or ``.pt2``; its folder is made where it is missing, and an old file
            stays until the new one has been checked.
        class_names: the classifier's.
        test_sizes: ``INPUT.MIN_SIZE_TEST`` and ``.MAX_SIZE_TEST``, kept in the file's metadata.

    Raises:
        ValueError: an unknown kind or suffix, an empty class name, class names for an encoder, or
            a model that looks at more than the whole picture.
        OSError: the file cannot be written.
        ImportError: ONNX's packages are not installed.
        ExportError: the file's numbers are not the model's.
    """
    target = Path(path)
    export_format = get_format(target)
    _prepare(model, kind, class_names, target)
    export_format.check_packages()
    model.cpu().eval()
    if kind == "classifier":
        model.set_vocabulary(class_names or _WORDS_OF_CHECK)
    graph = make_graph(model, kind, bool(class_names))
    metadata = describe_export(model, kind, test_sizes, class_names)
    program = trace(graph)
    with atomic_writer(target) as file:
        export_format.write(program, graph, metadata, file)
        file.flush()
        checks = tuple(compare(export_format.read(file.name), model, kind, graph))
        _refuse_difference(target, checks)
    return ExportReport(target, target.stat().st_size, checks)


def _prepare(model: PixelCLIP, kind: str, class_names: Sequence[str], target: Path) -> None:
    if kind not in KINDS:
        raise ValueError(f"The kind of export is {kind!r}; it must be one of {', '.join(KINDS)}.")
    if kind == "encoder" and class_names:
        raise ValueError(f"An encoder has no classes, but {len(class_names)} names were given.")
    mode = model.inference_mode
    if mode.name != "whole" or mode.flip:
        raise ValueError(
            f"TEST.INFERENCE_MODE is {mode.name!r} and TEST.FLIP {mode.flip}; an exported file "
            "looks at the whole picture once. Export with 'whole' and False; windows or mirrored "
            "pictures can be given to the file one by one."
        )
    target.parent.mkdir(parents=True, exist_ok=True)


def compare(exported: ExportedModel, model: PixelCLIP, kind: str, graph: Graph) -> Iterator[Check]:
    """Run an exported file and the model on random pictures of two sizes in two batches."""
    generator = torch.Generator().manual_seed(0)
    height, width = model.clip_resolution
    for size in ((height, width), (height // 2 + 5, width * 3 // 2 + 1)):
        for batch in _BATCHES:
            images = torch.randint(0, 256, (batch, 3, *size), generator=generator).float()
            inputs = {"images": images}
            if "text_features" in graph.inputs:
                inputs["text_features"] = model.text_classifier
            outputs = exported.run(inputs)
            compare_one = _compare_features if kind == "encoder" else _compare_scores
            differences = map(compare_one, outputs, itertools.repeat(model), images)
            yield Check(tuple(images.shape), max(differences))


@torch.no_grad()
def _compare_features(features: Tensor, model: PixelCLIP, image: Tensor) -> float:
    """Largest difference of features (h, w, d) of an image (3, H, W) from the model's own."""
    expected = F.normalize(model.image_encoder(model.preprocess([image]))[0], dim=-1)
    return (features - expected).abs().max().item()


def _compare_scores(scores: Tensor, model: PixelCLIP, image: Tensor) -> float:
    """Largest difference of scores (C, Th, Tw), resized to an image (3, H, W), from the model's."""
    resized = F.interpolate(scores[None], image.shape[1:], mode="bilinear", align_corners=False)
    expected = model([{"image": image}])[0]["sem_seg"]  # (C, H, W)
    return (resized[0] - expected).abs().max().item()


def _refuse_difference(target: Path, checks: Sequence[Check]) -> None:
    # Written so that a NaN is refused too.
    failed = [check for check in checks if not check.difference <= TOLERANCE]
    if failed:
        raise ExportError(
            f"{str(target)!r} was not written: for pictures of the shape {failed[0].shape} its "
            f"numbers differ by up to {failed[0].difference:.1e} from the model's, and at most "
            f"{TOLERANCE:.0e} is allowed. Other versions of torch, onnxscript or onnxruntime may "
            "export it better."
        )
