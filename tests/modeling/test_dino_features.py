import logging

import pytest
import timm
import torch
from safetensors.torch import save_file

from pixelclip.modeling.dino_features import DinoFeatures, check_dino

TINY = "test_vit"


@pytest.fixture(scope="module")
def tiny_dino():
    torch.manual_seed(0)
    return DinoFeatures(TINY, "")


@pytest.mark.parametrize("size", [(160, 160), (48, 80), (16, 16)])
def test_one_feature_for_each_patch_of_any_size(tiny_dino, size):
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    features = tiny_dino(images)
    assert features.shape == (2, size[0] // 16, size[1] // 16, 64)
    assert not features.requires_grad


def test_they_are_timms_last_layer_without_the_class_token(tiny_dino):
    images = torch.randint(0, 256, (1, 3, 160, 160)).float()
    vit = timm.create_model(TINY, num_classes=0).eval()  # of this size alone
    vit.load_state_dict(tiny_dino.vit.state_dict())
    statistics = timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD
    mean, std = (torch.tensor(values)[:, None, None] for values in statistics)
    with torch.no_grad():
        expected = vit.forward_features((images / 255 - mean) / std)[:, 1:]  # (1, 100, 64)
    torch.testing.assert_close(tiny_dino(images).flatten(1, 2), expected)


def test_nothing_trains_and_nothing_is_random(tiny_dino):
    assert not any(p.requires_grad for p in tiny_dino.parameters())
    assert not any(module.training for module in tiny_dino.train().modules())


def test_registers_are_no_patches():
    dino = DinoFeatures("vit_small_patch14_reg4_dinov2.lvd142m", "")
    assert dino(torch.zeros(1, 3, 56, 28)).shape == (1, 4, 2, 384)


def test_weights_come_from_a_file(tiny_dino, tmp_path):
    path = tmp_path / "dino.safetensors"
    save_file(dict(tiny_dino.vit.state_dict()), path)
    torch.save(tiny_dino.vit.state_dict(), tmp_path / "dino.pth")
    images = torch.randint(0, 256, (1, 3, 64, 64))
    for file in (path, tmp_path / "dino.pth"):
        assert torch.equal(DinoFeatures(TINY, str(file))(images), tiny_dino(images))


def test_another_models_weights_are_refused(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="other.pth' could not be loaded into test_vit"):
        DinoFeatures(TINY, str(path))
    weights = timm.create_model(TINY, num_classes=0).state_dict()
    torch.save({k: v for k, v in weights.items() if k != "norm.bias"}, path)
    with pytest.raises(ValueError, match="norm.bias"):
        DinoFeatures(TINY, str(path))
    path.write_bytes(b"no weights")
    with pytest.raises(ValueError, match="other.pth' could not be loaded into test_vit"):
        DinoFeatures(TINY, str(path))


def test_random_weights_are_said_in_the_log(caplog):
    with caplog.at_level(logging.WARNING):
        DinoFeatures(TINY, "")
    assert "random weights" in caplog.text


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("dino_small", "", "timm has no model 'dino_small'"),
        ("vit_small_patch16_224.dino7", "", "timm has no model 'vit_small_patch16_224.dino7'"),
        ("vit_small_patch16_224.dino", "gone.pth", "'gone.pth' are no file"),
    ],
)
def test_unknown_names_and_files_are_refused(name, weights, message):
    with pytest.raises(ValueError, match=message):
        check_dino(name, weights)


def test_other_kinds_of_models_are_refused():
    with pytest.raises(ValueError, match="test_resnet is no plain ViT"):
        DinoFeatures("test_resnet", "")


def test_sizes_that_patches_do_not_fill_are_refused(tiny_dino):
    with pytest.raises(ValueError, match=r"\(64, 40\) pixels; expected multiples of .* 16"):
        tiny_dino(torch.zeros(1, 3, 64, 40))


@pytest.mark.parametrize("name", ["vit_small_patch16_224.dino", "vit_small_patch14_dinov2.lvd142m"])
def test_the_published_models_are_known(name):
    check_dino(name, "pretrained")
