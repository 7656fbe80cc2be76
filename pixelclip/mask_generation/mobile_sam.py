"""MobileSAM: SAM with timm's TinyViT in the place of its image encoder, and the published file.

Source: Zhang et al., "Faster segment anything", 2023.
"""

import re
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import SamConfig, SamModel

from pixelclip.data.loader import random_state_from

_TINY_VIT = "tiny_vit_5m_224"

# From the names of the published file to those of timm and transformers, in this order.
_RENAMES = (
    (r"^image_encoder\.", "vision_encoder."),
    (r"patch_embed\.seq\.0\.", "patch_embed.conv1."),
    (r"patch_embed\.seq\.2\.", "patch_embed.conv2."),
    # timm begins a stage with the downsampling; in the file, the stage before ends with it.
    (r"layers\.0\.downsample", "stages.1.downsample"),
    (r"layers\.1\.downsample", "stages.2.downsample"),
    (r"layers\.2\.downsample", "stages.3.downsample"),
    (r"vision_encoder\.layers", "vision_encoder.stages"),
    (r"\.c\.weight$", ".conv.weight"),
    (r"neck\.0\.", "neck.conv1."),
    (r"neck\.1\.", "neck.layer_norm1."),
    (r"neck\.2\.", "neck.conv2."),
    (r"neck\.3\.", "neck.layer_norm2."),
    (r"pe_layer\.positional_encoding_gaussian_matrix$", "shared_embedding.positional_embedding"),
    (r"point_embeddings\.", "point_embed."),
    (r"mask_downscaling\.0\.", "mask_embed.conv1."),
    (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."),
    (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    (r"output_upscaling\.0\.", "upscale_conv1."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    (r"(head|mlps\.\d)\.layers\.0\.", r"\1.proj_in."),
    (r"(head|mlps\.\d)\.layers\.1\.", r"\1.layers.0."),
    (r"(head|mlps\.\d)\.layers\.2\.", r"\1.proj_out."),
    (r"(transformer\.layers\.\d)\.norm", r"\1.layer_norm"),
    (r"norm_final_attn", "layer_norm_final_attn"),
)
# The classifier of TinyViT's pretraining, which the file still has.
_LEFT_OUT = ("image_encoder.head.", "image_encoder.norm_head.")
# Two names of one parameter in SamModel; the file has the first.
_SHARED = (
    "prompt_encoder.shared_embedding.positional_embedding",
    "shared_image_embedding.positional_embedding",
)


class TinyViTEncoder(nn.Module):
    """A TinyViT whose last stage keeps the size of the one before, and SAM's neck."""

    def __init__(self, vit: Any, neck: nn.Module) -> None:
        super().__init__()
        self.patch_embed, self.stages, self.neck = vit.patch_embed, vit.stages, neck
        self.stages[-1].downsample.conv2.conv.stride = (1, 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        """Features (B, d, H / 16, W / 16) of normalized pixels (B, 3, H, W); a tuple, as SAM's."""
        # A tenth faster on CPUs.
        features = self.stages(self.patch_embed(pixels.to(memory_format=torch.channels_last)))
        return (self.neck(features.permute(0, 2, 3, 1)),)  # (B, c, h, w) -> (B, h, w, c)


def build_mobile_sam(tiny_vit: Any = None, **sizes: Any) -> Any:
    """A ``SamModel`` with random weights, in eval mode; torch's random state stays as it was.

    Args:
        tiny_vit: the image encoder of timm; None for the published one.
        sizes: other ``prompt_encoder_config`` and ``mask_decoder_config`` than the published ones,
            and ``vision_config`` for the neck.
    """
    with random_state_from(0):
        vit = tiny_vit or timm.create_model(_TINY_VIT)
        # Of SAM's own encoder only the neck stays.
        neck = {"hidden_size": vit.num_features, "num_hidden_layers": 0, "use_abs_pos": False}
        vision = {**neck, **sizes.pop("vision_config", {})}
        # transformers' 1e-6 is not what the decoder was trained with.
        decoder = {"layer_norm_eps": 1e-5, **sizes.pop("mask_decoder_config", {})}
        config = SamConfig(vision_config=vision, mask_decoder_config=decoder, **sizes)
        model: Any = SamModel(config)
    model.vision_encoder = TinyViTEncoder(vit, model.vision_encoder.neck)
    return model.eval()


def load_weights(model: nn.Module, path: str) -> None:
    """Load a file with the names of the published ``mobile_sam.pt``.

    Args:
        model: as :func:`build_mobile_sam` makes it.
        path: of a ``.safetensors`` file, or one that ``torch.save`` wrote; it is read with
            ``weights_only``.

    Raises:
        ValueError: it cannot be read, lacks a parameter, or has one that MobileSAM does not.
    """
    state = _read(path)
    names = {name: rename(name) for name in state if not name.startswith(_LEFT_OUT)}
    renamed = {new: state[name] for name, new in names.items()}
    if _SHARED[0] in renamed:
        renamed[_SHARED[1]] = renamed[_SHARED[0]]
    expected = model.state_dict().keys()
    missing = [name for name in expected if name not in renamed]
    unexpected = [name for name, new in names.items() if new not in expected]
    if missing or unexpected:
        raise ValueError(
            f"{path!r} does not hold MobileSAM: of its {len(state)} names {len(unexpected)} are "
            f"unknown ({', '.join(unexpected[:3]) or 'none'}), and {len(missing)} are missing "
            f"({', '.join(missing[:3]) or 'none'}). Expected those of the published mobile_sam.pt."
        )
    try:
        model.load_state_dict(renamed)
    except RuntimeError as error:  # names the parameters of another size
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{path!r} does not fit MobileSAM: {reason}") from error


def rename(name: str) -> str:
    """The name in :func:`build_mobile_sam`'s model of a parameter of the published file."""
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _read(path: str) -> dict[str, Tensor]:
    is_safetensors = path.endswith(".safetensors")
    try:
        state = load_file(path) if is_safetensors else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # torch, pickle and safetensors each raise their own kinds
        raise ValueError(
            f"The weights file {path!r} cannot be read ({type(error).__name__}). Expected the "
            "published mobile_sam.pt, or its content as .safetensors."
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{path!r} holds a {type(state).__name__}; expected names and tensors.")
    return {str(name): value for name, value in state.items()}
