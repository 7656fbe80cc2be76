import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from pixelclip.mask_generation.dino_generator import DINO, DINOv2

from .drawings import draw_regions

CPU = torch.device("cpu")


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "dino.pth"
    torch.save(timm.create_model("test_vit").state_dict(), path)
    return str(path)


def find(image, weights, num_clusters=16):
    generator = DINO("test_vit", weights, num_clusters)
    generator.load(CPU)
    return list(generator.generate(image))


@pytest.mark.parametrize("size", [(120, 160), (900, 700)])
def test_each_pixel_is_in_one_cluster(weights, size):
    found = find(draw_regions(*size)[0], weights, 5)
    assert len(found) == 5
    assert np.array_equal(np.sum([one.mask for one in found], axis=0), np.ones(size))


def test_the_same_image_gets_the_same_masks(weights):
    first, second = (find(draw_regions()[0], weights) for _ in range(2))
    assert [one.mask.tobytes() for one in first] == [one.mask.tobytes() for one in second]


def test_fewer_patches_than_clusters_give_fewer_masks(weights):
    found = find(np.full((20, 30, 3), 90, np.uint8), weights)
    assert 1 <= len(found) <= 2
    assert all(one.mask.any() for one in found)


@pytest.mark.slow
def test_published_weights_in_half_precision_fit(shared_folder):
    path = shared_folder / "weights" / "dinov2_vits14_float16.safetensors"
    if not path.is_file():
        pytest.skip(f"needs {path.name} of the real data")
    generator = DINOv2(weights=str(path))
    generator.load(CPU)
    saved = load_file(path)
    loaded = generator._dino.vit.state_dict()
    assert saved.keys() == loaded.keys()
    for name in saved.keys() - {"pos_embed"}:  # which is resized
        assert torch.equal(loaded[name], saved[name].float())
