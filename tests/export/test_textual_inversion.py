import json

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from pixelclip import PixelCLIP
from pixelclip.export.textual_inversion import export_prompts
from pixelclip.modeling.clip_loader import load_clip_config


@pytest.fixture
def weights(tiny_model, tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"model": tiny_model.state_dict()}, path)
    return path


def to_transformers(model: PixelCLIP) -> dict[str, torch.Tensor]:
    """The text encoder's parameters under the names of transformers' CLIP."""
    encoder = model.text_encoder
    weights = {
        "text_model.embeddings.token_embedding.weight": encoder.token_embedding.weight,
        "text_model.embeddings.position_embedding.weight": encoder.positional_embedding,
        "text_model.final_layer_norm.weight": encoder.ln_final.weight,
        "text_model.final_layer_norm.bias": encoder.ln_final.bias,
    }
    for index, block in enumerate(encoder.transformer.resblocks):
        layer = f"text_model.encoder.layers.{index}."
        for kind in ("weight", "bias"):
            joined = getattr(block.attn, f"in_proj_{kind}").chunk(3)
            for name, part in zip("qkv", joined, strict=True):
                weights[f"{layer}self_attn.{name}_proj.{kind}"] = part
            for name, module in (
                ("self_attn.out_proj", block.attn.out_proj),
                ("layer_norm1", block.ln_1),
                ("layer_norm2", block.ln_2),
                ("mlp.fc1", block.mlp.c_fc),
                ("mlp.fc2", block.mlp.c_proj),
            ):
                weights[f"{layer}{name}.{kind}"] = getattr(module, kind)
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


@pytest.fixture
def diffusion_folder(tiny_model, tmp_path):
    """The folder of a diffusion model with the tiny model's text encoder and nothing else."""
    folder = tmp_path / "diffusion"
    (folder / "text_encoder").mkdir(parents=True)
    save_file(to_transformers(tiny_model), folder / "text_encoder" / "model.safetensors")
    return folder


def test_each_prompt_is_a_file_of_one_word(tiny_config, tiny_model, weights, diffusion_folder):
    output = weights.parent / "words"
    paths = export_prompts(tiny_config, weights, output, diffusion_model=diffusion_folder)
    assert len(paths) == 9
    entries = json.loads((output / "prompts.json").read_text())
    for number, (entry, tokens) in enumerate(
        zip(entries, tiny_model.class_prompts.tokens, strict=True)
    ):
        assert entry["word"] == f"<pixelclip-{number}>"
        assert entry["sentence"] == f"A photo of a <pixelclip-{number}> in the scene"
        loaded = load_file(output / entry["file"])
        assert list(loaded) == [entry["word"]]
        assert torch.equal(loaded[entry["word"]], tokens)
    chosen = export_prompts(tiny_config, weights, output, [5], diffusion_folder)
    assert [path.name for path in chosen] == ["prompt_005.safetensors", "prompts.json"]


def test_half_precision_is_the_same_text_encoder(tiny_config, weights, diffusion_folder):
    path = diffusion_folder / "text_encoder" / "model.safetensors"
    half = {name: tensor.half() for name, tensor in load_file(path).items()}
    path.unlink()
    torch.save(half, path.with_name("pytorch_model.bin"))
    export_prompts(tiny_config, weights, weights.parent / "words", [0], diffusion_folder)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"", b"no weights", b"\x80\x02}q\x00."])
def test_a_damaged_text_encoder_is_refused(
    tiny_config, weights, diffusion_folder, name, content, tmp_path
):
    folder = diffusion_folder / "text_encoder"
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} cannot be read .*damaged"):
        export_prompts(tiny_config, weights, tmp_path / "words", diffusion_model=diffusion_folder)
    assert not (tmp_path / "words").exists()


def test_another_text_encoder_is_refused_and_nothing_written(
    tiny_config, weights, diffusion_folder
):
    output = weights.parent / "words"
    path = diffusion_folder / "text_encoder" / "model.safetensors"
    other = load_file(path)
    other["text_model.final_layer_norm.weight"] += 0.1
    save_file(other, path)
    with pytest.raises(ValueError, match=r"ln_final.weight has shape \(32,\).* other values"):
        export_prompts(tiny_config, weights, output, [0], diffusion_folder)
    other["text_model.embeddings.token_embedding.weight"] = torch.zeros(49408, 768)
    save_file(other, path)
    with pytest.raises(ValueError, match=r"\(49408, 32\), and there \(49408, 768\)"):
        export_prompts(tiny_config, weights, output, [0], diffusion_folder)
    save_file({"shared.weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="is not CLIP.s: it has no embeddings"):
        export_prompts(tiny_config, weights, output, [0], diffusion_folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="has none of model.safetensors"):
        export_prompts(tiny_config, weights, output, [0], diffusion_folder)
    assert not output.exists()


@pytest.mark.parametrize(
    ("architecture", "pretrained"),
    [
        ("ViT-B-16-quickgelu", "openai"),
        ("ViT-L-14", "laion2b_s32b_b82k"),
        ("ViT-L-14-quickgelu", "dfn2b"),
        ("convnext_base_w_320", "laion_aesthetic_s13b_b82k"),
    ],
)
def test_other_kinds_than_stable_diffusions_are_refused(
    tiny_config, weights, architecture, pretrained
):
    tiny_config.MODEL.CLIP.ARCH, tiny_config.MODEL.CLIP.PRETRAINED = architecture, pretrained
    with pytest.raises(ValueError, match=f"{architecture}.*not that of Stable Diffusion 1.x"):
        export_prompts(tiny_config, weights, weights.parent / "words")


def test_stable_diffusions_kind_is_accepted(tiny_config, weights):
    tiny_config.MODEL.CLIP.ARCH = "ViT-L-14-quickgelu"
    tiny_config.MODEL.CLIP.PRETRAINED = "openai"
    assert len(export_prompts(tiny_config, weights, weights.parent / "words")) == 9


@pytest.mark.parametrize("numbers", [[8], [-1]])
def test_prompts_that_there_are_none_of_are_refused(tiny_config, weights, numbers):
    with pytest.raises(ValueError, match="the prompts 0 to 7"):
        export_prompts(tiny_config, weights, weights.parent / "words", numbers)


def test_checkpoints_without_prompts_are_refused(tiny_config, tmp_path):
    torch.save({"model": {"class_prompts.vectors": torch.zeros(3, 4)}}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match="holds no learned class prompts"):
        export_prompts(tiny_config, tmp_path / "model.pth", tmp_path / "words")


def make_pipeline(model, architecture, folder):
    """A tiny Stable Diffusion pipeline around the model's text encoder."""
    diffusers = pytest.importorskip("diffusers")
    transformers = pytest.importorskip("transformers")
    config = load_clip_config(architecture)["text_cfg"]
    text_encoder = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=config["vocab_size"],
            hidden_size=config["width"],
            intermediate_size=4 * config["width"],
            projection_dim=24,
            num_hidden_layers=config["layers"],
            num_attention_heads=config["heads"],
            max_position_embeddings=config["context_length"],
            hidden_act="quick_gelu",
            bos_token_id=49406,
            eos_token_id=49407,
        )
    )
    ours = to_transformers(model)
    names = text_encoder.state_dict()
    prefixed = {
        n: ours.get(n, ours.get(f"text_model.{n}")) for n in names if "position_ids" not in n
    }
    text_encoder.load_state_dict(prefixed, strict=False)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        norm_num_groups=8,
        layers_per_block=1,
        cross_attention_dim=config["width"],
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
    )
    return diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder.eval(),
        tokenizer=make_tokenizer(transformers, folder),
        unet=unet,
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def make_tokenizer(transformers, folder):
    """CLIP's tokenizer for transformers, out of open_clip's."""
    own = open_clip.SimpleTokenizer()
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {special.get(token, token): index for token, index in own.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = sorted(own.bpe_ranks, key=own.bpe_ranks.get)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n")
    return transformers.CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77
    )


@pytest.mark.slow
def test_diffusers_reads_the_words_as_the_model_means_them(
    tiny_config, tiny_model, weights, diffusion_folder, tmp_path
):
    """The text encoder of the pipeline gives for a sentence what the class prompt gives here."""
    pipeline = make_pipeline(tiny_model, tiny_config.MODEL.CLIP.ARCH, tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    *files, listing = export_prompts(
        tiny_config, weights, tmp_path / "words", [3, 7], diffusion_folder
    )
    for file in files:
        pipeline.load_textual_inversion(str(file))
    expected = tiny_model.class_prompts(tiny_model.text_encoder)[[3, 7]]
    for entry, cluster in zip(json.loads(listing.read_text()), expected, strict=True):
        sentence = pipeline.maybe_convert_prompt(entry["sentence"], pipeline.tokenizer)
        ids = pipeline.tokenizer(sentence, return_tensors="pt").input_ids
        assert ids.shape == (1, 13)
        with torch.no_grad():
            hidden = pipeline.text_encoder(ids).last_hidden_state[0, -1]
            ours = hidden @ tiny_model.text_encoder.text_projection
        torch.testing.assert_close(ours, cluster.detach(), atol=1e-5, rtol=1e-4)
    image = pipeline(entry["sentence"], num_inference_steps=2, height=16, width=16).images[0]
    assert image.size == (16, 16)
