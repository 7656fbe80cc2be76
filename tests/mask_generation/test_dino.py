import numpy as np
import pytest
import timm
import torch

from pixelclip.mask_generation.dino import DinoGenerator

from .drawings import draw_regions

CPU = torch.device("cpu")


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "dino.pth"
    torch.save(timm.create_model("test_vit").state_dict(), path)
    return str(path)


@pytest.mark.parametrize("size", [(120, 160), (900, 700)])
def test_clusters_part_the_photograph(weights, size):
    picture, _ = draw_regions(*size)
    found = list(DinoGenerator("test_vit", CPU, weights, num_clusters=5).generate(picture))
    assert len(found) == 5
    assert np.array_equal(np.sum([one.mask for one in found], axis=0), np.ones(size))


def test_the_same_photograph_gets_the_same_masks(weights):
    picture, _ = draw_regions()
    masks = [
        [one.mask.tobytes() for one in DinoGenerator("test_vit", CPU, weights).generate(picture)]
        for _ in range(2)
    ]
    assert masks[0] == masks[1]


def test_fewer_patches_than_clusters_give_fewer_masks(weights):
    generator = DinoGenerator("test_vit", CPU, weights)
    found = list(generator.generate(np.full((20, 30, 3), 90, np.uint8)))
    assert 1 <= len(found) <= 2
    assert all(one.mask.any() for one in found)
