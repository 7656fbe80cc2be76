"""Tiny Segment Anything models with random weights, saved as real ones are."""

import re
from pathlib import Path

import torch
import transformers
from timm.models.tiny_vit import TinyVit

from pixelclip.mask_generation.mobile_sam import build_mobile_sam

SIDE = 64
_PATCHES = {"image_size": SIDE, "patch_size": 16}
_VISION = {
    **_PATCHES,
    "hidden_size": 16,
    "output_channels": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "mlp_dim": 32,
    "global_attn_indexes": [1],
    "window_size": 2,
    "num_pos_feats": 8,
}
_DECODER = {
    "hidden_size": 16,
    "mlp_dim": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 16,
}
_PROMPTS = {**_PATCHES, "hidden_size": 16, "image_embedding_size": SIDE // 16}
_BACKBONE = {
    "hidden_size": 8,
    "num_attention_heads": 1,
    "image_size": [SIDE, SIDE],
    "blocks_per_stage": [1, 1, 2, 1],
    "embed_dim_per_stage": [8, 16, 32, 64],
    "num_attention_heads_per_stage": [1, 1, 2, 2],
    "global_attention_blocks": [3],
    "window_size_per_stage": [4, 4, 4, 4],
    "window_positional_embedding_background_size": [2, 2],
    "model_type": "sam2_hiera_det_model",
}
_VISION_2 = {
    "backbone_config": _BACKBONE,
    "backbone_channel_list": [64, 32, 16, 8],
    "backbone_feature_sizes": [[SIDE // 4] * 2, [SIDE // 8] * 2, [SIDE // 16] * 2],
    "fpn_hidden_size": 16,
}


# From the names of our MobileSAM to those of the published file.
_PUBLISHED = (
    (r"^vision_encoder\.", "image_encoder."),
    (r"stages\.([1-3])\.downsample", lambda match: f"layers.{int(match[1]) - 1}.downsample"),
    (r"encoder\.stages", "encoder.layers"),
    (r"patch_embed\.conv([12])", lambda match: f"patch_embed.seq.{2 * int(match[1]) - 2}"),
    (r"\.conv\.weight$", ".c.weight"),
    (r"neck\.conv([12])", lambda match: f"neck.{2 * int(match[1]) - 2}"),
    (r"neck\.layer_norm([12])", lambda match: f"neck.{2 * int(match[1]) - 1}"),
    (r"shared_embedding.positional_embedding", "pe_layer.positional_encoding_gaussian_matrix"),
    (r"point_embed\.", "point_embeddings."),
    (r"mask_embed\.conv([123])", lambda match: f"mask_downscaling.{3 * int(match[1]) - 3}"),
    (r"mask_embed\.layer_norm([12])", lambda match: f"mask_downscaling.{3 * int(match[1]) - 2}"),
    (r"upscale_conv1", "output_upscaling.0"),
    (r"upscale_layer_norm", "output_upscaling.1"),
    (r"upscale_conv2", "output_upscaling.3"),
    (r"(head|mlps\.\d)\.layers\.0", r"\1.layers.1"),
    (r"proj_in", "layers.0"),
    (r"proj_out", "layers.2"),
    (r"layer_norm(\d)", r"norm\1"),
    (r"layer_norm_final_attn", "norm_final_attn"),
)


def build_tiny_sam(num_layers: int) -> transformers.SamModel:
    """SAM whose decoder has so many layers."""
    torch.manual_seed(0)
    model = transformers.SamModel(_config(transformers.SamConfig, num_hidden_layers=num_layers))
    _randomize(model)
    return model.eval()


def build_tiny_mobile_sam() -> transformers.SamModel:
    """MobileSAM."""
    vit = TinyVit(
        embed_dims=(8, 8, 16, 16), depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), num_classes=0
    )
    return build_mobile_sam(
        vit,
        vision_config={**_PATCHES, "output_channels": 16, "num_pos_feats": 8},
        prompt_encoder_config=_PROMPTS,
        mask_decoder_config={**_DECODER, "num_hidden_layers": 2},
    )


def published_state(model: transformers.SamModel) -> dict[str, torch.Tensor]:
    """A MobileSAM's weights under the names of the published file, with the classifier's."""
    classifier = ("image_encoder.norm_head.weight", "image_encoder.head.bias")
    state = {name: torch.zeros(2) for name in classifier}
    for name, value in model.state_dict().items():
        if not name.startswith("shared_image_embedding"):
            for pattern, replacement in _PUBLISHED:
                name = re.sub(pattern, replacement, name)
            state[name] = value
    return state


def save_tiny_mobile_sam(path: Path) -> str:
    """MobileSAM, which believes in its masks."""
    model = build_tiny_mobile_sam()
    _randomize(model)
    torch.save(published_state(model), path)
    return str(path)


def save_tiny_sam(folder: Path) -> str:
    """SAM."""
    return _save(transformers.SamModel(_config(transformers.SamConfig)), _processor(), folder)


def save_tiny_sam_hq(folder: Path) -> str:
    """SAM-HQ."""
    config = _config(transformers.SamHQConfig, vit_dim=16)
    return _save(transformers.SamHQModel(config), _processor(), folder)


def save_tiny_sam_2(folder: Path) -> str:
    """SAM 2."""
    config = transformers.Sam2Config(
        vision_config=_VISION_2,
        prompt_encoder_config={**_PATCHES, "hidden_size": 16},
        mask_decoder_config=_DECODER,
    )
    sides = {"height": SIDE, "width": SIDE}
    masks = {"height": SIDE // 4, "width": SIDE // 4}
    processor = transformers.Sam2ImageProcessor(size=sides, mask_size=masks)
    # SAM 2 takes the sigmoid of it.
    return _save(transformers.Sam2Model(config), processor, folder, iou_bias=3.0)


def _config(kind: type, **decoder_settings: int) -> transformers.PretrainedConfig:
    return kind(
        vision_config=_VISION,
        prompt_encoder_config=_PROMPTS,
        mask_decoder_config={**_DECODER, **decoder_settings},
    )


def _processor() -> transformers.SamImageProcessor:
    return transformers.SamImageProcessor(
        size={"longest_edge": SIDE},
        mask_size={"longest_edge": SIDE // 4},
        pad_size={"height": SIDE, "width": SIDE},
        mask_pad_size={"height": SIDE // 4, "width": SIDE // 4},
    )


def _save(model: torch.nn.Module, processor: object, folder: Path, iou_bias: float = 0.95) -> str:
    _randomize(model, iou_bias)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@torch.no_grad()
def _randomize(model: torch.nn.Module, iou_bias: float = 0.95) -> None:
    """Random weights whose masks have steep borders and are believed in, so that some are kept."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    decoder = model.mask_decoder
    for head in decoder.output_hypernetworks_mlps:
        head.proj_out.weight *= 1e4
    decoder.iou_prediction_head.proj_out.weight.zero_()
    decoder.iou_prediction_head.proj_out.bias.fill_(iou_bias)
