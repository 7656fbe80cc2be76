"""MobileSAM's network, and the names of the published file."""

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("transformers", reason="the extra 'masks' is not installed")

from pixelclip.mask_generation.mobile_sam import build_mobile_sam, load_weights, rename

from .tiny_models import SIDE, build_tiny_mobile_sam, published_state, save_tiny_mobile_sam


@pytest.fixture
def model():
    return build_tiny_mobile_sam()


def save(state, path):
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return str(path)


def test_the_features_have_a_sixteenth_of_the_image_s_size(model):
    assert model.get_image_embeddings(torch.zeros(2, 3, SIDE, SIDE)).shape == (2, 16, 4, 4)


def test_building_it_leaves_the_random_state_and_is_the_same_each_time():
    before = torch.get_rng_state()
    first, second = (build_mobile_sam().state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("image_encoder.patch_embed.seq.2.c.weight", "patch_embed.conv2.conv.weight"),
        ("image_encoder.patch_embed.seq.0.bn.running_mean", "patch_embed.conv1.bn.running_mean"),
        ("image_encoder.layers.0.blocks.1.conv2.c.weight", "stages.0.blocks.1.conv2.conv.weight"),
        (
            "image_encoder.layers.2.downsample.conv3.bn.bias",
            "stages.3.downsample.conv3.bn.bias",
        ),
        ("image_encoder.layers.3.blocks.1.local_conv.c.weight", "local_conv.conv.weight"),
        ("image_encoder.neck.3.bias", "vision_encoder.neck.layer_norm2.bias"),
        ("prompt_encoder.mask_downscaling.6.weight", "prompt_encoder.mask_embed.conv3.weight"),
        ("prompt_encoder.point_embeddings.2.weight", "prompt_encoder.point_embed.2.weight"),
        ("mask_decoder.iou_prediction_head.layers.1.bias", "iou_prediction_head.layers.0.bias"),
        (
            "mask_decoder.output_hypernetworks_mlps.3.layers.2.weight",
            "mask_decoder.output_hypernetworks_mlps.3.proj_out.weight",
        ),
        ("mask_decoder.transformer.layers.1.norm4.bias", "layers.1.layer_norm4.bias"),
        ("mask_decoder.transformer.norm_final_attn.bias", "layer_norm_final_attn.bias"),
    ],
)
def test_published_names_become_ours(published, ours):
    assert rename(published).endswith(ours)
    assert rename(published) in build_mobile_sam().state_dict()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_published_file_fills_every_parameter(model, suffix, tmp_path):
    path = save_tiny_mobile_sam(tmp_path / "weights.pt")
    saved = torch.load(path, weights_only=True)
    if suffix == ".safetensors":
        path = save(saved, tmp_path / "weights.safetensors")
    load_weights(model, path)
    loaded = published_state(model)
    assert all(torch.equal(loaded[name], saved[name]) for name in saved)
    twins = model.prompt_encoder.shared_embedding, model.shared_image_embedding
    assert torch.equal(*(twin.positional_embedding for twin in twins))


def test_what_does_not_fit_is_named(model, tmp_path):
    state = published_state(model)
    path = tmp_path / "weights.safetensors"
    lacking = {name: value for name, value in state.items() if "neck.2" not in name}
    with pytest.raises(ValueError, match=r"1 are missing \(vision_encoder.neck.conv2.weight\)"):
        load_weights(model, save(lacking, path))
    with pytest.raises(ValueError, match=r"1 are unknown \(blocks.0.norm\), and 0 are missing"):
        load_weights(model, save({**state, "blocks.0.norm": torch.zeros(1)}, path))
    name = "mask_decoder.iou_token.weight"
    with pytest.raises(ValueError, match="does not fit MobileSAM.*iou_token"):
        load_weights(model, save({**state, name: torch.zeros(1, 3)}, path))


def test_what_cannot_be_read_safely_is_refused(model, tmp_path):
    for name in ("weights.pt", "weights.safetensors"):
        (tmp_path / name).write_bytes(b"<html>not found</html>")
        with pytest.raises(ValueError, match=f"{name}' cannot be read.*mobile_sam.pt"):
            load_weights(model, str(tmp_path / name))
    torch.save(torch.nn.Linear(1, 1), tmp_path / "code.pt")
    with pytest.raises(ValueError, match=r"code.pt' cannot be read"):
        load_weights(model, str(tmp_path / "code.pt"))
    torch.save({1: 2}, tmp_path / "numbers.pt")
    with pytest.raises(ValueError, match=r"1 are unknown \(1\)"):
        load_weights(model, str(tmp_path / "numbers.pt"))
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds a list; expected names and tensors"):
        load_weights(model, str(tmp_path / "list.pt"))


def test_the_published_weights_fit(shared_folder):
    path = shared_folder / "weights" / "mobile_sam.safetensors"
    if not path.is_file():
        pytest.skip(f"needs {path.name} of the real data")
    model = build_mobile_sam()
    load_weights(model, str(path))
    neck = load_file(path)["image_encoder.neck.2.weight"]
    assert torch.equal(model.vision_encoder.neck.conv2.weight, neck)
