import pytest
import torch

from pixelclip.data.mask_dataset_mapper import MaskDatasetMapper
from pixelclip.data.sa1b import load_sa1b
from pixelclip.modeling.dino_features import DinoFeatures
from pixelclip.modeling.dino_masks import (
    DinoMasks,
    cluster_dino_features,
    cluster_dino_features_of_images,
)
from pixelclip.modeling.kmeans import kmeans
from tests.conftest import SMALL_TRAINING, make_tiny_config, write_photographs


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


def test_masks_of_a_training_image_are_those_of_the_weak_image(dino, image):
    source = DinoMasks("test_vit", "", 5, (48, 64))
    strong = image.clone()
    strong[:, 20:60, 10:40] = 0  # the black rectangle, which does not cut them
    (masks,) = source([{"image": image, "image_strong": strong, "mask_seed": 9}], CPU)
    assert torch.equal(masks, cluster_dino_features(dino, image, 5, 9, (48, 64)))
    (of_seed_zero,) = source([{"image": image}], CPU)
    assert torch.equal(of_seed_zero, cluster_dino_features(dino, image, 5, 0, (48, 64)))


def test_a_training_sample_has_dino_masks_everywhere(tmp_path):
    """The strong image has a black rectangle, and the masks made for the sample cover it too."""
    write_photographs(tmp_path / "photographs", count=1)
    cfg = make_tiny_config("")
    cfg.merge_from_list([*SMALL_TRAINING, "MODEL.PIXELCLIP.MASK_SOURCE", "dino"])
    (record,) = load_sa1b(tmp_path / "photographs")
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
        source.load()


def test_images_of_several_sizes_in_one_batch_are_as_alone(dino, image):
    images = [image, image[:, :48], image.flip(1), image[:, 48:]]
    together = cluster_dino_features_of_images(dino, images, 4, [1, 2, 3, 4], (24, 24))
    for masks, one, seed in zip(together, images, [1, 2, 3, 4], strict=True):
        assert torch.equal(masks, cluster_dino_features(dino, one, 4, seed, (24, 24)))
    assert cluster_dino_features_of_images(dino, [], 4, [], (24, 24)) == []
