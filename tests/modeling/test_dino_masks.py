import logging

import pytest
import timm
import torch
from safetensors.torch import save_file

from pixelclip.data.mapper import MaskDatasetMapper
from pixelclip.data.sa1b import load_sa1b
from pixelclip.modeling.dino_masks import (
    DinoFeatures,
    DinoMasks,
    check_dino,
    cluster_images,
)
from pixelclip.modeling.kmeans import kmeans
from tests.conftest import SMALL_TRAINING, make_tiny_config, write_images

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


def test_registers_are_not_patches():
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
        ("vit_small_patch16_224.dino", "gone.pth", "'gone.pth' of .* are not a file"),
    ],
)
def test_unknown_names_and_files_are_refused(name, weights, message):
    with pytest.raises(ValueError, match=message):
        check_dino(name, weights)


def test_other_kinds_of_models_are_refused():
    with pytest.raises(ValueError, match="test_resnet is not a plain ViT"):
        DinoFeatures("test_resnet", "")


@pytest.mark.parametrize("name", ["vit_small_patch16_224.dino", "vit_small_patch14_dinov2.lvd142m"])
def test_the_published_models_are_known(name):
    check_dino(name, "pretrained")


@pytest.fixture(scope="module")
def dino():
    torch.manual_seed(0)
    return DinoFeatures("test_vit", "")


@pytest.fixture
def image():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 96, 64), generator=generator, dtype=torch.uint8)


def test_each_pixel_is_in_one_mask_and_patches_stay_whole(dino, image):
    masks = cluster_images(dino, [image], 5, [0], (48, 64))[0]
    assert masks.shape == (5, 48, 64)
    assert masks.dtype == torch.bool
    assert (masks.sum(dim=0) == 1).all()
    patches = masks.reshape(5, 6, 8, 4, 16).permute(0, 1, 3, 2, 4).flatten(3)  # of 8x16 pixels
    assert (patches.all(dim=3) | ~patches.any(dim=3)).all()
    assignment = kmeans(dino(image[None]).flatten(1, 2), 5, [0]).assignment.reshape(6, 4)
    assert torch.equal(masks[:, ::8, ::16].int().argmax(dim=0), assignment)


def test_equal_seeds_give_equal_masks(dino, image):
    masks = [cluster_images(dino, [image], 6, [seed], (32, 32))[0] for seed in (3, 3, 4)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("size", [(5, 200), (70, 49), (16, 16)])
def test_images_of_any_size(dino, size):
    masks = cluster_images(dino, [torch.rand(3, *size) * 255], 3, [0], (20, 30))[0]
    assert masks.shape == (3, 20, 30)
    assert (masks.sum(dim=0) == 1).all()


CPU = torch.device("cpu")


def test_masks_of_a_training_image_are_those_of_the_weak_image(dino, image):
    source = DinoMasks("test_vit", "", 5, (48, 64))
    strong = image.clone()
    strong[:, 20:60, 10:40] = 0  # the black rectangle, which does not cut them
    (masks,) = source([{"image": image, "image_strong": strong, "mask_seed": 9}], CPU)
    assert torch.equal(masks, cluster_images(dino, [image], 5, [9], (48, 64))[0])
    (seed_zero_masks,) = source([{"image": image}], CPU)
    assert torch.equal(seed_zero_masks, cluster_images(dino, [image], 5, [0], (48, 64))[0])


def test_a_training_sample_has_dino_masks_everywhere(tmp_path):
    """The strong image has a black rectangle, and the masks made for the sample cover it too."""
    write_images(tmp_path / "images", count=1)
    cfg = make_tiny_config("")
    cfg.merge_from_list([*SMALL_TRAINING, "MODEL.PIXELCLIP.MASK_SOURCE", "dino"])
    (record,) = load_sa1b(tmp_path / "images")
    sample = MaskDatasetMapper(cfg).map_record(record)
    assert (sample["image_strong"] == 0).all(dim=0).sum() >= 4 * 4
    (masks,) = DinoMasks("test_vit", "", 5, (32, 32))([sample], CPU)
    assert (masks.sum(dim=0) == 1).all()


def test_random_weights_are_the_same_in_every_process(image):
    masks = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        masks += DinoMasks("test_vit", "", 5, (32, 32))([{"image": image}], CPU)
        assert torch.initial_seed() == seed
    assert torch.equal(*masks)


def test_dino_is_built_when_it_is_needed():
    source = DinoMasks("no_such_model", "", 5, (32, 32))
    with pytest.raises(ValueError, match="no_such_model"):
        source.features  # noqa: B018


def test_images_of_several_sizes_in_one_batch_are_as_alone(dino, image):
    images = [image, image[:, :48], image.flip(1), image[:, 48:]]
    together = cluster_images(dino, images, 4, [1, 2, 3, 4], (24, 24))
    for masks, one, seed in zip(together, images, [1, 2, 3, 4], strict=True):
        assert torch.equal(masks, cluster_images(dino, [one], 4, [seed], (24, 24))[0])
    assert cluster_images(dino, [], 4, [], (24, 24)) == []
