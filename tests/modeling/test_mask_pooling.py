import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from pixelclip import PixelCLIP
from pixelclip.modeling import mask_features
from pixelclip.modeling.mask_pooling import pool_masks, upsampling_matrix

from ..conftest import make_batch


def pool_by_upsampling(features, masks, image_index):
    """The definition: upsample the whole map, then take the mean inside each mask."""
    upsampled = F.interpolate(
        features.permute(0, 3, 1, 2), masks.shape[1:], mode="bilinear", align_corners=False
    )
    pooled = [upsampled[i][:, mask].mean(dim=1) for i, mask in zip(image_index, masks, strict=True)]
    return torch.stack(pooled)


sizes = st.integers(1, 24)


@settings(max_examples=40)
@given(rows=sizes, columns=sizes, height=sizes, width=sizes, seed=st.integers(0, 2**20))
def test_equals_pooling_the_upsampled_map(rows, columns, height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(3, rows, columns, 4, generator=generator, requires_grad=True)
    image_index = torch.tensor([0, 0, 2])  # the second image has no mask
    masks = torch.rand(3, height, width, generator=generator) > 0.6
    masks[:, 0, 0] = True
    actual = pool_masks(features, masks, image_index)
    expected = pool_by_upsampling(features, masks, image_index)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad(x.square().sum(), features)[0] for x in (actual, expected)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


def test_no_masks_give_no_features():
    features = torch.randn(2, 4, 4, 8)
    pooled = pool_masks(features, torch.zeros(0, 16, 16, dtype=torch.bool), torch.zeros(0).long())
    assert pooled.shape == (0, 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_does_not_round(dtype):
    features = torch.randn(2, 4, 4, 8).to(dtype)
    masks = torch.rand(5, 16, 16) > 0.5
    arguments = (features, masks, torch.tensor([0, 0, 1, 1, 1]))
    with torch.autocast("cpu", torch.bfloat16):
        pooled = pool_masks(*arguments)
    assert pooled.dtype == torch.float32
    assert torch.equal(pooled, pool_masks(*arguments))


@pytest.mark.parametrize("assignment", ["sinkhorn", "none"])
def test_training_pools_in_float32_with_and_without_clusters(tiny_config, monkeypatch, assignment):
    tiny_config.MODEL.PIXELCLIP.ASSIGNMENT = assignment
    model = PixelCLIP(tiny_config).train()
    calls = []

    def note(*arguments):
        calls.append((arguments, pool_masks(*arguments)))
        return calls[-1][1]

    monkeypatch.setattr(mask_features, "pool_masks", note)
    with torch.autocast("cpu", torch.bfloat16):
        model(make_batch())
    ((arguments, pooled),) = calls
    assert torch.equal(pooled, pool_masks(*arguments))  # as without autocast
    assert pooled.dtype == torch.float32


def test_upsampling_matrix_preserves_constants():
    torch.testing.assert_close(upsampling_matrix(5, 17).sum(dim=1), torch.ones(17))
