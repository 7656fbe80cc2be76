"""A tiny Stable Diffusion pipeline with random weights and the text encoder of a tiny PixelCLIP."""

import json
from pathlib import Path

import open_clip
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from pixelclip.meta_arch import PixelCLIP
from tests.conftest import TEXT_CONFIG
from tests.export.test_textual_inversion import to_transformers

_WIDTH = TEXT_CONFIG["width"]


def save_tiny_diffusion_model(model: PixelCLIP, folder: Path) -> None:
    """Save a pipeline of 16x16 pixels, whose text encoder is that of a tiny model."""
    blocks = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
    unet = UNet2DConditionModel(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=_WIDTH,
        attention_head_dim=4,
        **blocks,
    )
    decoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        sample_size=16,
        **blocks,
    )
    pipeline = StableDiffusionPipeline(
        vae=decoder,
        text_encoder=_make_text_encoder(model),
        tokenizer=_make_tokenizer(folder.with_name("tokenizer")),
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)


def _make_text_encoder(model: PixelCLIP) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=TEXT_CONFIG["vocab_size"],
        hidden_size=_WIDTH,
        intermediate_size=4 * _WIDTH,
        num_hidden_layers=TEXT_CONFIG["layers"],
        num_attention_heads=TEXT_CONFIG["heads"],
        max_position_embeddings=TEXT_CONFIG["context_length"],
    )
    encoder = CLIPTextModel(config)
    own = encoder.state_dict()
    # transformers 5 has no prefix any more.
    weights = {
        name if name in own else name.removeprefix("text_model."): tensor
        for name, tensor in to_transformers(model).items()
    }
    encoder.load_state_dict(weights)
    return encoder


def _make_tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's tokenizer, from the file of merges that open_clip brings."""
    own = open_clip.SimpleTokenizer()
    folder.mkdir(parents=True)
    ends = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {ends.get(token, token): number for token, number in own.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = "\n".join(" ".join(pair) for pair in own.bpe_ranks)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    return CLIPTokenizer.from_pretrained(str(folder), model_max_length=own.context_length)
