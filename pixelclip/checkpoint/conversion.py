"""Checkpoints in other layouts: published, ours, or for inference only."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pixelclip.checkpoint.checkpointer import (
    TRAINING_PARTS,
    is_for_inference,
    published_name,
    read_checkpoint,
)
from pixelclip.utils.atomic_write import atomic_writer

LAYOUTS = ("ours", "published", "inference")

_PUBLISHED_CLIP = "sem_seg_head.predictor.clip_model."
_PUBLISHED_TEACHER = "teacher_encoder."
# CLIP's trained temperature, the logarithm of 100, which no part of the method uses.
_LOGIT_SCALE = 4.6052


@dataclass(frozen=True)
class Conversion:
    """What a conversion did: sizes of the files in bytes, tensors, and parts that were left out."""

    source_bytes: int
    target_bytes: int
    tensors: int
    left_out: tuple[str, ...]


def convert_checkpoint(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    layout: str,
    half: bool = False,
) -> Conversion:
    """Write the weights of a checkpoint in another layout; the state of a training is left out.

    Args:
        source: a checkpoint, ours or a published one.
        target: another file; what stands there is replaced when the new one is whole.
        layout: "ours" or "published", with all weights; or "inference": ours without teacher and
            mask decoder, which evaluation and Predictor load as they load the others.
        half: store floating-point weights in 16 bits; they are computed with in 32.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: an unknown layout, ``target`` is ``source``, a file that is no checkpoint of
            PixelCLIP, or one whose weights the layout or 16 bits cannot hold.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"The layout is {layout!r}; it must be one of {', '.join(LAYOUTS)}.")
    _check_files(source, target)
    checkpoint = read_checkpoint(os.fspath(source))
    weights = checkpoint.pop("model")
    _check_weights(os.fspath(source), weights, layout)
    converted = _convert(weights, layout)
    if half:
        converted = {name: _to_half(name, tensor) for name, tensor in converted.items()}
    with atomic_writer(target) as file:
        torch.save({"model": converted}, file)
    return Conversion(
        source_bytes=os.path.getsize(source),
        target_bytes=os.path.getsize(target),
        tensors=len(converted),
        left_out=tuple(checkpoint),
    )


def _check_files(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    if os.path.exists(target) and os.path.samefile(source, target):
        raise ValueError(f"{os.fspath(target)!r} is the source itself: choose another target.")
    folder = os.path.dirname(os.path.abspath(target))
    if os.path.isdir(target) or not os.path.isdir(folder):
        raise ValueError(f"{os.fspath(target)!r} is a folder, or lies in none that exists.")


def _check_weights(source: str, weights: Mapping[str, Tensor], layout: str) -> None:
    needed = ["image_encoder.", "text_encoder.", "class_prompts."]
    if layout != "inference":
        needed += TRAINING_PARTS
    missing = [part for part in needed if not any(name.startswith(part) for name in weights)]
    if not missing:
        return
    if is_for_inference(weights) and missing == list(TRAINING_PARTS):
        raise ValueError(
            f"{source!r} is for inference only, without teacher and mask decoder: convert the "
            f"checkpoint that it was made of to {layout!r}."
        )
    raise ValueError(
        f"{source!r} is no checkpoint of PixelCLIP: it has no {', '.join(missing)}* among its "
        f"{len(weights)} weights."
    )


def _convert(weights: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    if layout == "ours":
        return dict(weights)
    if layout == "inference":
        return {n: value for n, value in weights.items() if not n.startswith(TRAINING_PARTS)}
    return _to_published(weights)


def _to_published(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under published names, with what the published file holds beyond ours.

    That is CLIP's temperature, and of the frozen text encoder a copy without its transformer.
    """
    published = {published_name(name): value for name, value in weights.items()}
    published[f"{_PUBLISHED_CLIP}logit_scale"] = torch.tensor(_LOGIT_SCALE)
    for name in list(published):
        rest = name.removeprefix(_PUBLISHED_CLIP)
        if rest != name and not rest.startswith(("visual.", "transformer.")):
            published[_PUBLISHED_TEACHER + rest] = published[name]
    return published


def _to_half(name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    if torch.isfinite(tensor).all() and not torch.isfinite(half).all():
        raise ValueError(
            f"{name!r} holds values up to {tensor.abs().max():.3g}, and 16 bits end at 65504: "
            "leave the checkpoint in 32 bits."
        )
    return half
