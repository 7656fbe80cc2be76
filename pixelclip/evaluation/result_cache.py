"""Results of finished data sets on disk, so that an interrupted evaluation resumes.

A result is stored with a fingerprint of all that it depends on, and is only taken again where the
fingerprint is the same: weights, settings, vocabulary, images and labels.
"""

import dataclasses
import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.data import DatasetCatalog
from torch import nn

from pixelclip.checkpoint.checkpointer import TRAINING_PARTS
from pixelclip.evaluation.mask_regions import mask_file
from pixelclip.evaluation.timed_inference import Speed
from pixelclip.utils.atomic_write import write_text

logger = logging.getLogger(__name__)

Fingerprint = dict[str, str]


@dataclasses.dataclass(frozen=True)
class DatasetResult:
    """What the evaluation of one data set gave.

    Attributes:
        metrics: the evaluator's: floats in nested dicts, usually task to metric to value; NaN
            where a class does not occur.
        num_images: how many images were evaluated.
        speed: how fast.
    """

    metrics: dict[str, Any]
    num_images: int
    speed: Speed


def hash_weights(model: nn.Module) -> str:
    """SHA-256 of a model's state dict: names, types, shapes and values.

    What only training needs does not count: no result depends on it.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith(TRAINING_PARTS):
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)  # any shape -> (elements,)
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def hash_data(name: str, mask_folder: Path | None = None) -> str:
    """SHA-256 of a data set: image names and sizes in bytes, the labels' and masks' content.

    Folders do not count: the same files elsewhere are the same data set.
    """
    digest = hashlib.sha256()
    for record in DatasetCatalog.get(name):
        image = record["file_name"]
        digest.update(f"{os.path.basename(image)} {_size(image)};".encode())
        digest.update(_content_hash(record.get("sem_seg_file_name")))
        digest.update(_content_hash(mask_file(mask_folder, image) if mask_folder else None))
    return digest.hexdigest()


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # the evaluation says so, where it matters
        return -1


def _content_hash(path: str | Path | None) -> bytes:
    try:
        return hashlib.sha256(Path(path).read_bytes()).digest() if path else b"none"
    except OSError:
        return b"unreadable"


def make_fingerprint(
    weights: str, settings: Mapping[str, Any], vocabulary: Mapping[str, Any], data: str
) -> Fingerprint:
    """What a result depends on, part by part, so that it can be said what has changed.

    Args:
        weights: :func:`hash_weights`.
        settings: all config values that can change a result; as JSON.
        vocabulary: class names and all else that makes up the model's vocabulary; as JSON.
        data: :func:`hash_data`.
    """
    parts = {"settings": settings, "vocabulary": vocabulary}
    hashes = {
        part: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
        for part, value in parts.items()
    }
    return {"weights": weights, "data": data, **hashes}


def save_result(folder: str, name: str, fingerprint: Fingerprint, result: DatasetResult) -> None:
    """Write ``folder/name.json`` in one step; the folder is made where it is missing."""
    os.makedirs(folder, exist_ok=True)
    content = {"fingerprint": fingerprint, **dataclasses.asdict(result)}
    write_text(_path(folder, name), json.dumps(content, indent=2) + "\n")


def load_result(folder: str, name: str, fingerprint: Fingerprint) -> DatasetResult | None:
    """The stored result of a data set if it belongs to ``fingerprint``, else None.

    The log names files that cannot be used, and why.
    """
    path = _path(folder, name)
    try:
        with open(path, "rb") as file:
            content = json.load(file, object_hook=_read_numbers)
        stored = content.pop("fingerprint")
        changed = [part for part in fingerprint if stored[part] != fingerprint[part]]
        result = DatasetResult(
            dict(content["metrics"]), int(content["num_images"]), Speed(**content["speed"])
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s is not a stored result (%r): evaluating again.", path, error)
        return None
    if changed:
        logger.info("%s has another result, of other %s.", path, ", ".join(changed))
        return None
    return result


def _read_numbers(values: dict[str, Any]) -> dict[str, Any]:
    """Read null, which former versions wrote for NaN; a speed without a value stays None."""
    return {k: math.nan if v is None and k != "images_per_second" else v for k, v in values.items()}


def _path(folder: str, name: str) -> str:
    return os.path.join(folder, f"{name.replace('/', '_')}.json")
