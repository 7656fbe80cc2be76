"""Convert checkpoints to other layouts: published, ours, or for inference only."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pixelclip.checkpoint.checkpointer import (
    CONFIG_KEY,
    OPTIONAL_PARTS,
    TRAINING_PARTS,
    is_for_inference,
    published_name,
    read_checkpoint,
)
from pixelclip.checkpoint.weights_download import fetch_weights
from pixelclip.utils.atomic_write import atomic_writer

LAYOUTS = ("ours", "published", "inference")
# The mean crop in mask_features.* is taken from crops at inference, too.
_LEFT_OUT: dict[str, tuple[str, ...]] = {
    "ours": (),
    "published": OPTIONAL_PARTS,
    "inference": (*TRAINING_PARTS, "mask_queue."),
}


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
    """Write the weights and the config of a checkpoint in another layout, without training state.

    Args:
        source: a checkpoint, ours or a published one; see :func:`fetch_weights`.
        target: another file; what stands there is replaced when the new one is complete.
        layout: "ours" or "published", with all weights; or "inference": ours without teacher and
            mask decoder, which evaluation and Predictor load like the others.
        half: store floating-point weights in 16 bits; computations stay in 32.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: an unknown layout, ``target`` is ``source``, a file that is not a checkpoint of
            PixelCLIP, or one whose weights the layout or 16 bits cannot hold.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"The layout is {layout!r}; it must be one of {', '.join(LAYOUTS)}.")
    source = fetch_weights(os.fspath(source))
    if os.path.exists(target) and os.path.samefile(source, target):
        raise ValueError(f"{os.fspath(target)!r} is the source itself: choose another target.")
    checkpoint = read_checkpoint(source)
    weights = checkpoint.pop("model")
    is_kept = CONFIG_KEY in checkpoint and layout != "published"
    config = {CONFIG_KEY: checkpoint.pop(CONFIG_KEY)} if is_kept else {}
    _check_weights(source, weights, layout)
    weights = {n: v for n, v in weights.items() if not n.startswith(_LEFT_OUT[layout])}
    if layout == "published":
        weights = _to_published(weights)
    if half:
        weights = {name: _to_half(name, tensor) for name, tensor in weights.items()}
    with atomic_writer(target) as file:
        torch.save({"model": weights, **config}, file)
    sizes = os.path.getsize(source), os.path.getsize(target)
    return Conversion(*sizes, tensors=len(weights), left_out=tuple(checkpoint))


def _check_weights(source: str, weights: Mapping[str, Tensor], layout: str) -> None:
    if is_for_inference(weights) and layout != "inference":
        raise ValueError(
            f"{source!r} is for inference only, without teacher and mask decoder: convert the "
            f"checkpoint that it was made of to {layout!r}."
        )
    needed = ["image_encoder.", "text_encoder.", "class_prompts."]
    needed += [] if layout == "inference" else TRAINING_PARTS
    missing = [part for part in needed if not any(name.startswith(part) for name in weights)]
    if missing:
        raise ValueError(
            f"{source!r} is not a checkpoint of PixelCLIP: it has no {', '.join(missing)}* among "
            f"its {len(weights)} weights."
        )


def _to_published(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under published names, with what else the published file holds and nothing uses.

    That is CLIP's temperature, and of the frozen text encoder a copy without its transformer.
    """
    published = {published_name(name): value for name, value in weights.items()}
    clip = "sem_seg_head.predictor.clip_model."
    published[f"{clip}logit_scale"] = torch.tensor(4.6052)  # of 100
    for name in list(published):
        rest = name.removeprefix(clip)
        if rest != name and not rest.startswith(("visual.", "transformer.")):
            published[f"teacher_encoder.{rest}"] = published[name]
    return published


def _to_half(name: str, tensor: Tensor) -> Tensor:
    half = tensor.half() if tensor.is_floating_point() else tensor
    if torch.isfinite(tensor).all() and not torch.isfinite(half).all():
        raise ValueError(
            f"{name!r} holds values up to {tensor.abs().max():.3g}, and 16 bits end at 65504: "
            "leave the checkpoint in 32 bits."
        )
    return half
