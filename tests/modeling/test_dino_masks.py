import pytest
import torch

from pixelclip.modeling.dino_features import DinoFeatures
from pixelclip.modeling.dino_masks import (
    DinoMasks,
    cluster_dino_features,
    cluster_dino_features_of_images,
)
from pixelclip.modeling.kmeans import kmeans


@pytest.fixture(scope="module")
def dino():
    torch.manual_seed(0)
    return DinoFeatures("test_vit", "")


@pytest.fixture
def image():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 96, 64), generator=generator, dtype=torch.uint8)


def test_each_pixel_is_in_one_mask_and_patches_stay_whole(dino, image):
    masks = cluster_dino_features(dino, image, 5, 0, (48, 64))
    assert masks.shape == (5, 48, 64)
    assert masks.dtype == torch.bool
    assert (masks.sum(dim=0) == 1).all()
    patches = masks.reshape(5, 6, 8, 4, 16).permute(0, 1, 3, 2, 4).flatten(3)  # of 8x16 pixels
    assert (patches.all(dim=3) | ~patches.any(dim=3)).all()
    assignment = kmeans(dino(image[None]).flatten(1, 2), 5, [0]).assignment.reshape(6, 4)
    assert torch.equal(masks[:, ::8, ::16].int().argmax(dim=0), assignment)


def test_equal_seeds_give_equal_masks(dino, image):
    masks = [cluster_dino_features(dino, image, 6, seed, (32, 32)) for seed in (3, 3, 4)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("size", [(5, 200), (70, 49), (16, 16)])
def test_images_of_any_size(dino, size):
    masks = cluster_dino_features(dino, torch.rand(3, *size) * 255, 3, 0, (20, 30))
    assert masks.shape == (3, 20, 30)
    assert (masks.sum(dim=0) == 1).all()


CPU = torch.device("cpu")


def test_masks_of_a_training_image_end_where_it_is_visible(dino, image):
    source = DinoMasks("test_vit", "", 5, (48, 64))
    (everywhere,) = source([{"image": image}], CPU)
    assert torch.equal(everywhere, cluster_dino_features(dino, image, 5, 0, (48, 64)))
    visible = torch.rand(48, 64) > 0.3
    (masks,) = source([{"image": image, "visible": visible, "mask_seed": 9}], CPU)
    whole = cluster_dino_features(dino, image, 5, 9, (48, 64))
    assert torch.equal(masks.any(dim=0), visible)
    assert torch.equal(masks, whole & visible)


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
        source.load()


def test_images_of_several_sizes_in_one_batch_are_as_alone(dino, image):
    images = [image, image[:, :48], image.flip(1), image[:, 48:]]
    together = cluster_dino_features_of_images(dino, images, 4, [1, 2, 3, 4], (24, 24))
    for masks, one, seed in zip(together, images, [1, 2, 3, 4], strict=True):
        assert torch.equal(masks, cluster_dino_features(dino, one, 4, seed, (24, 24)))
    assert cluster_dino_features_of_images(dino, [], 4, [], (24, 24)) == []
