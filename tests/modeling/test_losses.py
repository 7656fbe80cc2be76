import pytest
import torch
from torch.nn import functional as F

from pixelclip.modeling.losses import mask_loss, single_mask_loss


def loss_by_gathering(logits, targets):
    """The definition: pick the covered pixels, then the plain mean over pixels and clusters."""
    logits = F.interpolate(logits, targets.shape[-2:], mode="bilinear", align_corners=False)
    covered = targets.any(dim=1)
    picked = [x.permute(0, 2, 3, 1)[covered] for x in (logits, targets)]
    return F.binary_cross_entropy_with_logits(*picked)


@pytest.mark.parametrize("shape", [(2, 3, 4, 6, 16, 24), (1, 5, 7, 3, 9, 20), (3, 1, 8, 8, 8, 8)])
def test_equals_the_mean_over_gathered_pixels(shape):
    images, clusters, rows, columns, height, width = shape
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(images, clusters, rows, columns, generator=generator, requires_grad=True)
    targets = (torch.rand(images, clusters, height, width, generator=generator) > 0.8).float()
    actual, expected = mask_loss(logits, targets), loss_by_gathering(logits, targets)
    torch.testing.assert_close(actual, expected)
    gradients = [torch.autograd.grad(x, logits)[0] for x in (actual, expected)]
    torch.testing.assert_close(*gradients)


def test_without_covered_pixels_it_is_zero_with_zero_gradients():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = mask_loss(logits, torch.zeros(2, 3, 8, 8))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_half_precision_logits_are_lifted():
    logits = torch.randn(1, 2, 4, 4)
    targets = torch.ones(1, 2, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = mask_loss(logits.bfloat16(), targets)
    torch.testing.assert_close(loss, mask_loss(logits.bfloat16().float(), targets))


def test_single_masks_equal_the_mean_over_their_images_covered_pixels():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(5, 4, 6, generator=generator, requires_grad=True)
    masks = torch.rand(5, 9, 12, generator=generator) > 0.7
    image_index = torch.tensor([0, 0, 2, 2, 2])
    actual = single_mask_loss(logits, masks, image_index, 3)
    upsampled = F.interpolate(logits[:, None], (9, 12), mode="bilinear", align_corners=False)[:, 0]
    picked = []
    for image in (0, 2):
        covered = masks[image_index == image].any(dim=0)
        for n in torch.nonzero(image_index == image).flatten():
            picked.append((upsampled[n][covered], masks[n][covered].float()))
    values, labels = (torch.cat(parts) for parts in zip(*picked, strict=True))
    expected = F.binary_cross_entropy_with_logits(values, labels)
    torch.testing.assert_close(actual, expected)
    gradients = [torch.autograd.grad(x, logits)[0] for x in (actual, expected)]
    torch.testing.assert_close(*gradients)


def test_no_single_masks_at_all():
    logits = torch.zeros(0, 4, 4, requires_grad=True)
    none = torch.zeros(0, dtype=torch.long)
    loss = single_mask_loss(logits, torch.zeros(0, 8, 8, dtype=torch.bool), none, 2)
    assert loss.item() == 0
