"""Learned class prompts as words of a diffusion model: files of textual inversion.

A class prompt is L vectors in the place of L token embeddings, which is what textual inversion
learns too. They mean the same to a diffusion model if its text encoder is the one that they were
trained with; for Stable Diffusion 1.x that is OpenAI's CLIP ViT-L/14.

Shapes: K prompts, L tokens each, w the width of the text encoder.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from safetensors.torch import load_file, save
from torch import Tensor

from pixelclip.checkpoint import read_checkpoint
from pixelclip.modeling.clip_loader import load_clip_config
from pixelclip.utils.atomic_write import atomic_writer, write_text

# The first of these that a diffusion model has is read.
_TEXT_ENCODER_FILES = (
    *("model.safetensors", "model.fp16.safetensors"),
    *("pytorch_model.bin", "pytorch_model.fp16.bin"),
)
# How parameters end in transformers' CLIP, and what they are called here.
_COMPARED = {
    "embeddings.token_embedding.weight": "text_encoder.token_embedding.weight",
    "embeddings.position_embedding.weight": "text_encoder.positional_embedding",
    "final_layer_norm.weight": "text_encoder.ln_final.weight",
    "final_layer_norm.bias": "text_encoder.ln_final.bias",
}
_STABLE_DIFFUSION_1 = "12 layers of width 768, 12 heads, QuickGELU"


def export_prompts(
    cfg: CfgNode,
    weights: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    prompts: Sequence[int] = (),
    diffusion_model: str | os.PathLike[str] | None = None,
) -> list[Path]:
    """Write class prompts so that diffusers' ``load_textual_inversion`` reads them.

    Each prompt becomes a file ``prompt_NUMBER.safetensors`` with the (L, w) float32 vectors of the
    word ``<pixelclip-NUMBER>``. ``prompts.json`` lists files, words, and the sentences in which
    they were learned.

    Args:
        cfg, weights: of the training, and its checkpoint.
        prompts: numbers in 0..K-1; all by default.
        diffusion_model: the folder of a diffusion model, whose text encoder is compared with the
            checkpoint's. Without it, the text encoder has to be of Stable Diffusion 1.x's kind.

    Returns the files, ``prompts.json`` last.

    Raises:
        ValueError: the text encoder is not the diffusion model's, or cannot be read; the
            checkpoint has no learned prompts; or a number is out of range.
        FileNotFoundError: the checkpoint or the diffusion model's text encoder is not there.
    """
    parameters = read_checkpoint(os.fspath(weights))["model"]
    tokens = _find_tokens(parameters, prompts, os.fspath(weights))
    if diffusion_model is None:
        _check_kind(cfg)
    else:
        _check_same(parameters, Path(diffusion_model))
    chosen = {number: tokens[number] for number in prompts or range(len(tokens))}
    return _write(chosen, cfg.MODEL.PIXELCLIP.PROMPT_TEMPLATE, Path(folder))


def _write(chosen: Mapping[int, Tensor], template: str, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, tokens in chosen.items():
        word, name = f"<pixelclip-{number}>", f"prompt_{number:03d}.safetensors"
        with atomic_writer(folder / name) as file:
            file.write(save({word: tokens.float().contiguous()}))
        entries.append({"file": name, "word": word, "sentence": template.replace("{}", word)})
    write_text(folder / "prompts.json", json.dumps(entries, indent=1) + "\n")
    return [folder / entry["file"] for entry in entries] + [folder / "prompts.json"]


def _find_tokens(parameters: Mapping[str, Tensor], prompts: Sequence[int], weights: str) -> Tensor:
    """Token embeddings (K, L, w), which have all of the prompts."""
    tokens = parameters.get("class_prompts.tokens")
    if tokens is None:
        raise ValueError(
            f"{weights} holds no learned class prompts (MODEL.PIXELCLIP.CLUSTER_EMBEDDINGS was not "
            "'prompts'): there is nothing to export."
        )
    for number in prompts:
        if not 0 <= number < len(tokens):
            raise ValueError(
                f"Prompt {number} was asked for; {weights} has the prompts 0 to {len(tokens) - 1}."
            )
    return tokens


def _check_kind(cfg: CfgNode) -> None:
    """Refuse text encoders of another kind, or known to be of other weights, than OpenAI's."""
    found = _describe_text_encoder(load_clip_config(cfg.MODEL.CLIP.ARCH))
    pretrained = cfg.MODEL.CLIP.PRETRAINED
    is_other_tag = bool(pretrained) and not os.path.isfile(pretrained) and pretrained != "openai"
    if found != _STABLE_DIFFUSION_1 or is_other_tag:
        raise ValueError(
            f"The text encoder of {cfg.MODEL.CLIP.ARCH!r} with {pretrained!r} weights ({found}) is "
            "not that of Stable Diffusion 1.x, which is OpenAI's CLIP ViT-L/14 "
            f"({_STABLE_DIFFUSION_1}); its prompts would mean nothing there. Train with "
            "configs/pixelclip_vitl14.yaml, or give the folder of another diffusion model."
        )


def _describe_text_encoder(config: Mapping[str, Any]) -> str:
    text = config["text_cfg"]
    activation = "QuickGELU" if config.get("quick_gelu") else "GELU"
    return f"{text['layers']} layers of width {text['width']}, {text['heads']} heads, {activation}"


def _check_same(parameters: Mapping[str, Tensor], diffusion_model: Path) -> None:
    """Refuse another text encoder than the diffusion model's, within half precision."""
    theirs = _read_text_encoder(diffusion_model)
    for ending, name in _COMPARED.items():
        found = [tensor.float() for key, tensor in theirs.items() if key.endswith(ending)]
        if not found:
            raise ValueError(f"{diffusion_model}'s text encoder is not CLIP's: it has no {ending}.")
        other, own = found[0], parameters[name].float()
        has_same_shape = other.shape == own.shape
        if not (has_same_shape and torch.allclose(other, own, rtol=2e-3, atol=1e-5)):
            raise ValueError(
                f"The checkpoint's text encoder is not that of {diffusion_model}: {name} has shape "
                f"{tuple(own.shape)}, and there {tuple(other.shape)}"
                f"{', with other values' if has_same_shape else ''}. Its prompts would mean "
                "nothing there. Stable Diffusion 1.x needs a training with "
                "configs/pixelclip_vitl14.yaml."
            )


def _read_text_encoder(diffusion_model: Path) -> dict[str, Tensor]:
    folder = diffusion_model / "text_encoder"
    path = next((folder / name for name in _TEXT_ENCODER_FILES if (folder / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"{folder} has none of {', '.join(_TEXT_ENCODER_FILES)}; expected the folder of a "
            "diffusion model as diffusers saves it."
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both libraries raise errors of many kinds on a damaged file
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}): it is damaged or not a weights file. "
            "Download the diffusion model's text encoder again."
        ) from error
