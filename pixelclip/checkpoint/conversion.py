"""Convert checkpoints to other layouts: published, ours, for inference, or CLIP for others."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
from pixelclip.checkpoint.clip_folders import (
    LOGIT_SCALE,
    take_clip_weights,
    write_open_clip_folder,
    write_transformers_folder,
)
from pixelclip.checkpoint.saved_config import load_saved_config
from pixelclip.checkpoint.weights_download import fetch_weights
from pixelclip.utils.atomic_write import atomic_folder, atomic_writer

# Those of a folder, with the CLIP only, and what writes them.
CLIP_LAYOUTS = {"transformers": write_transformers_folder, "open_clip": write_open_clip_folder}
LAYOUTS = ("ours", "published", "inference", *CLIP_LAYOUTS)
# The mean crop in mask_features.* is taken from crops at inference, too.
_LEFT_OUT: dict[str, tuple[str, ...]] = {
    "ours": (),
    "published": OPTIONAL_PARTS,
    "inference": (*TRAINING_PARTS, "mask_queue."),
}


@dataclass(frozen=True)
class Conversion:
    """What a conversion did: sizes in bytes, tensors, and parts of the file that were left out."""

    source_bytes: int
    target_bytes: int
    tensors: int
    left_out: tuple[str, ...]


def convert_checkpoint(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    layout: str,
    half: bool = False,
    config_file: str = "",
) -> Conversion:
    """Write the weights and the config of a checkpoint in another layout, without training state.

    Args:
        source: a checkpoint, ours or a published one; see :func:`fetch_weights`.
        target: another file; what stands there is replaced when the new one is complete. A new or
            empty folder for "transformers" and "open_clip".
        layout: "ours" or "published", with all weights; "inference": ours without teacher and
            mask decoder, which evaluation and Predictor load like the others; "transformers" or
            "open_clip": a folder with the CLIP, see ``clip_folders.py``.
        half: store floating-point weights in 16 bits.
        config_file: for folders, tells the architecture. Default: the config of the checkpoint.

    Raises:
        OSError: a file cannot be read or written, or the folder is not empty.
        ModuleNotFoundError: a package is not installed.
        ValueError: an unknown layout, ``target`` is ``source`` or ends in .safetensors, a file
            that is not a checkpoint of PixelCLIP, or one whose weights the layout or 16 bits
            cannot hold, or without a config.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"The layout is {layout!r}; it must be one of {', '.join(LAYOUTS)}.")
    path = fetch_weights(os.fspath(source))
    _check_target(path, os.fspath(target), layout)
    checkpoint = read_checkpoint(path)
    weights = checkpoint.pop("model")
    _check_weights(path, weights, layout)
    weights = select_weights(weights, layout, half)
    is_kept = CONFIG_KEY in checkpoint and layout != "published"
    config = {CONFIG_KEY: checkpoint.pop(CONFIG_KEY)} if is_kept else {}
    if layout in CLIP_LAYOUTS:
        architecture = load_saved_config(os.fspath(source), config_file).MODEL.CLIP.ARCH
        with atomic_folder(target) as folder:
            CLIP_LAYOUTS[layout](folder, architecture, weights)
    else:
        with atomic_writer(target) as file:
            torch.save({"model": weights, **config}, file)
    sizes = os.path.getsize(path), _size(target)
    return Conversion(*sizes, tensors=len(weights), left_out=tuple(checkpoint))


def select_weights(
    weights: Mapping[str, Tensor], layout: str, half: bool = False
) -> dict[str, Tensor]:
    """The weights that a layout holds, under its names; see :func:`convert_checkpoint`."""
    if layout in CLIP_LAYOUTS:
        selected = take_clip_weights(weights)
    else:
        selected = {n: v for n, v in weights.items() if not n.startswith(_LEFT_OUT[layout])}
    if layout == "published":
        selected = _to_published(selected)
    return {n: _to_half(n, v) for n, v in selected.items()} if half else selected


def _check_target(source: str, target: str, layout: str) -> None:
    if os.path.exists(target) and os.path.samefile(source, target):
        raise ValueError(f"{target!r} is the source itself: choose another target.")
    if layout not in CLIP_LAYOUTS and os.path.isdir(target):
        raise IsADirectoryError(f"{target!r} is a folder: name the file to write.")
    if layout not in CLIP_LAYOUTS and target.endswith(".safetensors"):
        raise ValueError(
            f"{target!r}: {layout!r} is a file of torch.save; end its name in .pth. "
            "Predictor.save_pretrained writes safetensors."
        )


def _size(target: str | os.PathLike[str]) -> int:
    """Bytes of a file, or of a folder's files."""
    path = Path(target)
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))


def _check_weights(source: str, weights: Mapping[str, Tensor], layout: str) -> None:
    if is_for_inference(weights) and layout in ("ours", "published"):
        raise ValueError(
            f"{source!r} is for inference only, without teacher and mask decoder: convert the "
            f"checkpoint that it was made of to {layout!r}."
        )
    needed = ["image_encoder.", "text_encoder.", "class_prompts."]
    needed += TRAINING_PARTS if layout in ("ours", "published") else []
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
    published[f"{clip}logit_scale"] = torch.tensor(LOGIT_SCALE)
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
