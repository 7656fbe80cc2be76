"""Tiny Segment Anything models with random weights, saved as transformers saves real ones."""

from pathlib import Path

import torch
import transformers

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


@torch.no_grad()
def _save(model: torch.nn.Module, processor: object, folder: Path, iou_bias: float = 0.95) -> str:
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
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)
