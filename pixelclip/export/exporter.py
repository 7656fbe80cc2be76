"""Export a model, and keep a file only if it gives the same numbers as the model.

Every file takes ``images`` (batch, 3, height, width) float32, RGB in 0..255, of any batch and size,
and normalizes and resizes them to ``MODEL.CLIP.RESOLUTION``:

* an "encoder" gives ``features`` (batch, h, w, d), L2-normalized, one vector per patch;
* a "classifier" gives ``scores`` (batch, classes, height, width), the cosines with its class names
  at ``MODEL.PIXELCLIP.TEST_FEATURE_SIZE``. Without names it also takes ``text_features``
  (classes, d), such as :func:`save_text_features` writes.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pixelclip.export.formats import FORMATS, ExportedModel
from pixelclip.export.graphs import Graph, make_graph
from pixelclip.meta_arch import PixelCLIP
from pixelclip.utils.atomic_write import atomic_writer

# Largest difference between an output of the file and of the model, both in -1..1.
TOLERANCE = 1e-4
# Vocabulary of the check where the file has none.
_WORDS_OF_CHECK = ("sky", "grass", "house")


class ExportError(RuntimeError):
    """An exported file does not give the same numbers as the model; it has been removed."""


def export_model(
    model: PixelCLIP,
    kind: str,
    path: str | os.PathLike[str],
    class_names: Sequence[str] = (),
    test_sizes: tuple[int, int] = (640, 2560),
) -> dict[tuple[int, ...], float]:
    """Write a part of a model as an ONNX or torch.export file, and run the file to check it.

    Args:
        model: moved to the CPU and into eval mode; its vocabulary is changed.
        kind: "encoder" or "classifier".
        path: ends in ``.onnx`` or ``.pt2``. An old file stays until the new one has been checked.
        class_names: the classifier's.
        test_sizes: ``INPUT.MIN_SIZE_TEST`` and ``.MAX_SIZE_TEST``, kept in the file's metadata.

    Returns:
        The largest difference from the model for each shape (B, 3, H, W) of images.

    Raises:
        ValueError: an unknown kind or suffix, an empty class name, class names for an encoder, or
            a model that does not see the whole image at once.
        OSError, ImportError: the file cannot be written, or ONNX's packages are not installed.
        ExportError: the file does not give the same numbers as the model.
    """
    path = Path(path)
    _check_request(model, kind, path, class_names)
    model.cpu().eval()
    if kind == "classifier":
        model.set_vocabulary(class_names or _WORDS_OF_CHECK)
    graph = make_graph(model, kind, bool(class_names))
    path.parent.mkdir(parents=True, exist_ok=True)
    write, read = FORMATS[path.suffix]
    with atomic_writer(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' own, about their internals
        write(graph, _describe(model, kind, test_sizes, class_names), file)
        file.flush()
        differences = _compare(read(file.name), model, kind, graph)
        _raise_if_different(path, differences)
    return differences


def _check_request(model: PixelCLIP, kind: str, path: Path, class_names: Sequence[str]) -> None:
    if path.suffix not in FORMATS:
        raise ValueError(
            f"The output file {str(path)!r} must end in {' or '.join(FORMATS)}, for ONNX or "
            "torch.export."
        )
    if kind not in ("encoder", "classifier"):
        raise ValueError(f"The kind of export is {kind!r}; expected 'encoder' or 'classifier'.")
    if kind == "encoder" and class_names:
        raise ValueError(f"An encoder has no classes, but {len(class_names)} names were given.")
    mode = model.inference_views.mode
    if mode.name != "whole" or mode.flip:
        raise ValueError(
            f"TEST.INFERENCE_MODE is {mode.name!r} and TEST.FLIP {mode.flip}; an exported file "
            "looks at the whole image once. Export with 'whole' and False; windows or flipped "
            "images can be given to the file one by one."
        )


def _describe(
    model: PixelCLIP, kind: str, test_sizes: tuple[int, int], class_names: Sequence[str]
) -> dict[str, Any]:
    """The metadata: what the file's user has to do, then what the file does itself."""
    return {
        "kind": kind,
        "channel_order": "RGB",
        "value_range": [0, 255],
        "short_side": test_sizes[0],
        "long_side": test_sizes[1],
        "resolution": list(model.clip_resolution),
        "pixel_mean": model.pixel_mean.flatten().tolist(),
        "pixel_std": model.pixel_std.flatten().tolist(),
        "stride": model.image_encoder.stride,
        "embedding_dim": model.image_encoder.embedding_dim,
        "class_names": list(class_names),
    }


def _compare(
    exported: ExportedModel, model: PixelCLIP, kind: str, graph: Graph
) -> dict[tuple[int, ...], float]:
    """Run an exported file and the model on random images of two sizes in two batches."""
    generator = torch.Generator().manual_seed(0)
    height, width = model.clip_resolution
    differences = {}
    for size in ((height, width), (height // 2 + 5, width * 3 // 2 + 1)):
        for batch in (1, 3):
            images = torch.randint(0, 256, (batch, 3, *size), generator=generator).float()
            outputs = zip(exported.run({**graph.inputs, "images": images}), images, strict=True)
            each = torch.stack([_difference(model, kind, *pair) for pair in outputs])
            differences[tuple(images.shape)] = each.max().item()  # NaN if any is
    return differences


@torch.no_grad()
def _difference(model: PixelCLIP, kind: str, output: Tensor, image: Tensor) -> Tensor:
    """Largest difference from the model for an image (3, H, W): output (h, w, d) or (C, Th, Tw)."""
    if kind == "encoder":
        expected = F.normalize(model.image_encoder(model.preprocess([image]))[0], dim=-1)
    else:
        expected = model([{"image": image}])[0]["sem_seg"]  # (C, H, W)
        size = image.shape[1:]
        output = F.interpolate(output[None], size, mode="bilinear", align_corners=False)[0]
    return (output - expected).abs().max()


def _raise_if_different(path: Path, differences: Mapping[tuple[int, ...], float]) -> None:
    for shape, difference in differences.items():
        if not difference <= TOLERANCE:  # so that NaN is refused too
            raise ExportError(
                f"{str(path)!r} was not written: for images of the shape {shape} its numbers "
                f"differ by up to {difference:.1e} from the model's, and at most {TOLERANCE:.0e} "
                "is allowed. Other versions of torch, onnxscript or onnxruntime may export it "
                "better."
            )


def save_text_features(
    model: PixelCLIP, class_names: Sequence[str], path: str | os.PathLike[str]
) -> None:
    """Write the unit vectors of words as a NumPy archive (``.npz``), for an exported classifier.

    It holds ``text_features`` (C, d) float32 and ``class_names`` (C,), texts.

    Raises:
        ValueError: the path does not end in ``.npz``, or as :meth:`PixelCLIP.set_vocabulary`.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"The output file {str(path)!r} of text features must end in .npz.")
    model.set_vocabulary(class_names)
    path.parent.mkdir(parents=True, exist_ok=True)
    features = model.text_classifier.features.cpu().numpy().astype(np.float32)
    with atomic_writer(path) as file:
        np.savez(file, text_features=features, class_names=np.array(list(class_names)))
