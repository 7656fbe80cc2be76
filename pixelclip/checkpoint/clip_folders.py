"""The CLIP of a checkpoint as a folder that transformers or open_clip loads without PixelCLIP.

Class prompts, teacher and mask decoder are left out. CLIP's temperature is one of the weights
there, which PixelCLIP neither trains nor stores: it is written as the ln 100 that CLIP's own
training ends at.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from pixelclip.modeling.clip_loader import load_clip, load_clip_config, load_tokenizer
from pixelclip.modeling.transformers_weights import to_transformers
from pixelclip.utils.installation import import_optional

LOGIT_SCALE = math.log(100)

_CLIP_PARTS = ("image_encoder.", "text_encoder.")
# Largest difference of embeddings between open_clip's CLIP and transformers', in float32.
_TOLERANCE = 1e-4


def take_clip_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a PixelCLIP model's weights those of its CLIP, under open_clip's names."""
    clip = {
        name.removeprefix(part): tensor.contiguous()
        for part in _CLIP_PARTS
        for name, tensor in weights.items()
        if name.startswith(part)
    }
    return {**clip, "logit_scale": torch.tensor(LOGIT_SCALE)}


def write_open_clip_folder(folder: str, architecture: str, weights: Mapping[str, Tensor]) -> None:
    """Write ``open_clip_config.json`` and the weights into an existing folder.

    Args:
        folder: for ``open_clip.create_model_from_pretrained("local-dir:FOLDER")``.
        architecture: see :func:`load_clip`.
        weights: of :func:`take_clip_weights`.

    Raises:
        ValueError: the weights do not fit the architecture, or its tokenizer has merges of its own.
    """
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    config = load_clip_config(architecture)
    if "bpe_path" in (config["text_cfg"].get("tokenizer_kwargs") or {}):
        raise ValueError(
            f"The CLIP {architecture!r} has a tokenizer with merges of its own, for which "
            "open_clip does not look in such a folder: choose --to transformers."
        )
    _load_strictly(load_clip(architecture, "", weights_follow=True), weights, architecture)
    normalization = {"mean": OPENAI_DATASET_MEAN, "std": OPENAI_DATASET_STD}
    content = {"model_cfg": config, "preprocess_cfg": normalization}
    _write_json(folder, "open_clip_config.json", content)
    save_file(dict(weights), os.path.join(folder, "open_clip_model.safetensors"))


def write_transformers_folder(
    folder: str, architecture: str, weights: Mapping[str, Tensor]
) -> None:
    """Write what transformers' ``CLIPModel`` and ``CLIPProcessor`` load into an existing folder.

    The processor makes images of the size that CLIP was pretrained with, to which the positional
    embedding belongs. Before anything is written, embeddings of an image and a text are compared
    with open_clip's.

    Args:
        folder, architecture, weights: see :func:`write_open_clip_folder`.

    Raises:
        ModuleNotFoundError: transformers is not installed.
        ValueError: the weights do not fit the architecture, or transformers does not have it.
    """
    import_optional("transformers", "transformers")
    from transformers import CLIPImageProcessor, CLIPModel

    config = load_clip_config(architecture)
    _check_for_transformers(config, architecture)
    clip = load_clip(architecture, "", weights_follow=True)
    _load_strictly(clip, weights, architecture)
    tokenizer = load_tokenizer(architecture)
    model: Any = CLIPModel(_transformers_config(config, tokenizer))
    _load_strictly(model, to_transformers(weights), "transformers' CLIPModel")
    _check_same_embeddings(clip.eval(), model.eval(), architecture)
    model.to(weights["logit_scale"].dtype).save_pretrained(folder)
    side = model.config.vision_config.image_size
    crop = {"height": side, "width": side}
    CLIPImageProcessor(size={"shortest_edge": side}, crop_size=crop).save_pretrained(folder)
    _write_tokenizer(folder, tokenizer)


def _check_for_transformers(config: dict[str, Any], architecture: str) -> None:
    vision = config["vision_cfg"]
    problem = ""
    if "timm_model_name" in vision:
        problem = f"an image encoder of another kind, {vision['timm_model_name']!r}"
    elif not isinstance(vision.get("image_size", 0), int):
        problem = f"images that are not square, {vision['image_size']}"
    if problem:
        raise ValueError(
            f"transformers' CLIPModel has a vision transformer for square images, and "
            f"{architecture!r} has {problem}: choose --to open_clip."
        )


def _load_strictly(model: torch.nn.Module, weights: Mapping[str, Tensor], into: str) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"The checkpoint's CLIP does not fit {into!r}: {error}") from error


def _transformers_config(config: dict[str, Any], tokenizer: Any) -> Any:
    from open_clip import CLIPTextCfg, CLIPVisionCfg
    from transformers import CLIPConfig

    vision, text = CLIPVisionCfg(**config["vision_cfg"]), CLIPTextCfg(**config["text_cfg"])
    shared = {"hidden_act": "quick_gelu" if config.get("quick_gelu") else "gelu"}
    shared["projection_dim"] = config["embed_dim"]
    vision_config = {
        **_transformer_config(vision, vision.width // vision.head_width),
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        **shared,
    }
    text_config = {
        **_transformer_config(text, text.heads),
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.context_length,
        "bos_token_id": tokenizer.sot_token_id,
        # Its first place in a text is where the text's embedding is taken from.
        "eos_token_id": tokenizer.eot_token_id,
        "pad_token_id": tokenizer.eot_token_id,
        **shared,
    }
    return CLIPConfig(
        vision_config=vision_config, text_config=text_config,
        projection_dim=config["embed_dim"], logit_scale_init_value=LOGIT_SCALE,
    )  # fmt: skip


def _transformer_config(tower: Any, heads: int) -> dict[str, Any]:
    return {
        "hidden_size": tower.width,
        "intermediate_size": int(tower.width * tower.mlp_ratio),
        "num_hidden_layers": tower.layers,
        "num_attention_heads": heads,
    }


@torch.no_grad()
def _check_same_embeddings(clip: Any, model: Any, architecture: str) -> None:
    """Refuse what has the same parameters as transformers' CLIP and computes something else."""
    vision, text = model.config.vision_config, model.config.text_config
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, vision.image_size, vision.image_size, generator=generator)
    ids = torch.full((1, text.max_position_embeddings), text.eos_token_id)
    ids[0, :4] = torch.tensor([text.bos_token_id, 1, 2, 3])
    pairs = {
        "image": (clip.encode_image(image), model.vision_model(image), model.visual_projection),
        "text": (clip.encode_text(ids), model.text_model(ids), model.text_projection),
    }
    for name, (expected, output, project) in pairs.items():
        difference = (project(output.pooler_output) - expected).abs().max() / expected.abs().max()
        if not difference < _TOLERANCE:
            raise ValueError(
                f"transformers' CLIPModel gives another {name} embedding than {architecture!r} "
                f"(relative difference {difference:.1e}): it lacks a part of this architecture. "
                "Choose --to open_clip."
            )


def _write_tokenizer(folder: str, tokenizer: Any) -> None:
    """Write the vocabulary in the layout that every version of ``CLIPTokenizer`` reads."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    vocabulary = dict(tokenizer.encoder)
    for name, number in ((start, tokenizer.sot_token_id), (end, tokenizer.eot_token_id)):
        del vocabulary[tokenizer.decoder[number]]
        vocabulary[name] = number
    merges = ["#version: 0.2", *map(" ".join, tokenizer.bpe_ranks), ""]
    Path(folder, "merges.txt").write_text("\n".join(merges), encoding="utf-8")
    _write_json(folder, "vocab.json", vocabulary)
    special = {"bos_token": start, "eos_token": end, "pad_token": end, "unk_token": end}
    length = tokenizer.context_length
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": length, **special}
    _write_json(folder, "tokenizer_config.json", settings)


def _write_json(folder: str, name: str, content: Any) -> None:
    Path(folder, name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
