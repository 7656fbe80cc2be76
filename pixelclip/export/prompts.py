"""Learnt class prompts as words of a diffusion model: files of textual inversion.

A class prompt is L vectors in the place of L token embeddings, which is what textual inversion
learns too. They mean the same to a diffusion model if its text encoder is the one that they were
learnt with; for Stable Diffusion 1.x that is OpenAI's CLIP ViT-L/14.

Shapes: K prompts, L tokens each, w the width of the text encoder.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from detectron2.config import CfgNode
from safetensors.torch import load_file, save
from torch import Tensor

from pixelclip.checkpoint import read_checkpoint
from pixelclip.modeling.clip_loader import load_clip_config
from pixelclip.utils.atomic_write import atomic_writer

# Of the files of a diffusion model that hold its text encoder, the first that is there is read.
_TEXT_ENCODER_FILES = (
    "model.safetensors",
    "model.fp16.safetensors",
    "pytorch_model.bin",
    "pytorch_model.fp16.bin",
)
# How parameters end in transformers' CLIP, and what they are called here.
_COMPARED = {
    "embeddings.token_embedding.weight": "text_encoder.token_embedding.weight",
    "embeddings.position_embedding.weight": "text_encoder.positional_embedding",
    "final_layer_norm.weight": "text_encoder.ln_final.weight",
    "final_layer_norm.bias": "text_encoder.ln_final.bias",
}
# Half precision has 11 binary digits.
_RELATIVE_TOLERANCE, _ABSOLUTE_TOLERANCE = 2e-3, 1e-5


class _TextEncoderKind(NamedTuple):
    width: int
    heads: int
    layers: int
    quick_gelu: bool

    def __str__(self) -> str:
        activation = "QuickGELU" if self.quick_gelu else "GELU"
        return f"{self.layers} layers of width {self.width}, {self.heads} heads, {activation}"


# Of OpenAI's CLIP ViT-L/14.
_STABLE_DIFFUSION_1 = _TextEncoderKind(width=768, heads=12, layers=12, quick_gelu=True)


def export_prompts(
    cfg: CfgNode,
    weights: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    prompts: Sequence[int] = (),
    diffusion_model: str | os.PathLike[str] | None = None,
) -> list[Path]:
    """Write class prompts so that diffusers' ``load_textual_inversion`` reads them.

    Each prompt becomes a file ``prompt_NUMBER.safetensors`` with one entry, the word
    ``<pixelclip-NUMBER>`` and its (L, w) float32 vectors. ``prompts.json`` lists the files, the
    words, and the sentence in which each was learnt.

    Args:
        cfg: of the training.
        weights: the checkpoint.
        folder: is made where it is missing.
        prompts: numbers in 0..K-1; all by default.
        diffusion_model: the folder of a diffusion model, whose text encoder is compared with the
            checkpoint's. Without it, the text encoder has to be of Stable Diffusion 1.x's kind.

    Returns:
        The files, ``prompts.json`` last.

    Raises:
        ValueError: the text encoder is not the diffusion model's or its file is damaged, the
            checkpoint has no learnt prompts, or a number is none of theirs.
        FileNotFoundError: the checkpoint or the diffusion model's text encoder is not there.
    """
    parameters = read_checkpoint(os.fspath(weights))["model"]
    tokens = _find_tokens(parameters, os.fspath(weights))
    numbers = _check_numbers(prompts, len(tokens))
    if diffusion_model is None:
        _check_kind(cfg)
    else:
        _check_same(parameters, Path(diffusion_model))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number in numbers:
        word, name = f"<pixelclip-{number}>", f"prompt_{number:03d}.safetensors"
        with atomic_writer(folder / name) as file:
            file.write(save({word: tokens[number].float().contiguous()}))
        sentence = cfg.MODEL.PIXELCLIP.PROMPT_TEMPLATE.replace("{}", word)
        entries.append({"file": name, "word": word, "sentence": sentence})
    with atomic_writer(folder / "prompts.json") as file:
        file.write((json.dumps(entries, indent=1) + "\n").encode())
    return [folder / entry["file"] for entry in entries] + [folder / "prompts.json"]


def _find_tokens(parameters: Mapping[str, Tensor], weights: str) -> Tensor:
    tokens = parameters.get("class_prompts.tokens")
    if tokens is None:
        raise ValueError(
            f"{weights} holds no learnt class prompts (MODEL.PIXELCLIP.CLUSTER_EMBEDDINGS was not "
            "'prompts'): there is nothing to export."
        )
    return tokens


def _check_numbers(numbers: Sequence[int], count: int) -> Sequence[int]:
    wrong = [number for number in numbers if not 0 <= number < count]
    if wrong:
        raise ValueError(
            f"Prompt {wrong[0]} was asked for; the checkpoint has the prompts 0 to {count - 1}."
        )
    return numbers or range(count)


def _check_kind(cfg: CfgNode) -> None:
    """Refuse text encoders of another kind, or known to be of other weights, than OpenAI's."""
    config = load_clip_config(cfg.MODEL.CLIP.ARCH)
    text = config["text_cfg"]
    found = _TextEncoderKind(
        text["width"], text["heads"], text["layers"], bool(config.get("quick_gelu"))
    )
    pretrained = cfg.MODEL.CLIP.PRETRAINED
    is_other_tag = bool(pretrained) and not os.path.isfile(pretrained) and pretrained != "openai"
    if found != _STABLE_DIFFUSION_1 or is_other_tag:
        raise ValueError(
            f"The text encoder of {cfg.MODEL.CLIP.ARCH!r} with {pretrained!r} weights ({found}) is "
            "not that of Stable Diffusion 1.x, which is OpenAI's CLIP ViT-L/14 "
            f"({_STABLE_DIFFUSION_1}); its prompts would mean nothing there. Train with "
            "configs/pixelclip_vitl14.yaml, or name the folder of another diffusion model."
        )


def _check_same(parameters: Mapping[str, Tensor], diffusion_model: Path) -> None:
    """Refuse another text encoder than the diffusion model's; half precision counts as equal."""
    theirs = _read_text_encoder(diffusion_model)
    for ending, name in _COMPARED.items():
        found = [tensor for key, tensor in theirs.items() if key.endswith(ending)]
        if not found:
            raise ValueError(
                f"The text encoder of {diffusion_model} is not CLIP's: it has no parameter "
                f"{ending}."
            )
        other, own = found[0].float(), parameters[name].float()
        if other.shape != own.shape or not torch.allclose(
            other, own, _RELATIVE_TOLERANCE, _ABSOLUTE_TOLERANCE
        ):
            raise ValueError(
                f"The checkpoint's text encoder is not that of {diffusion_model}: {name} has shape "
                f"{tuple(own.shape)}, and there {tuple(other.shape)}"
                + (", with other values" if other.shape == own.shape else "")
                + ". Its prompts would mean nothing there. Stable Diffusion 1.x needs a training "
                "with configs/pixelclip_vitl14.yaml."
            )


def _read_text_encoder(diffusion_model: Path) -> dict[str, Tensor]:
    folder = diffusion_model / "text_encoder"
    for name in _TEXT_ENCODER_FILES:
        path = folder / name
        if path.is_file():
            return _read_tensors(path)
    raise FileNotFoundError(
        f"{folder} has none of {', '.join(_TEXT_ENCODER_FILES)}; expected the folder of a "
        "diffusion model as diffusers saves it."
    )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both libraries raise errors of many kinds on a damaged file
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}): it is damaged or no weights file. "
            "Download the diffusion model's text encoder again."
        ) from error
