import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from pixelclip.modeling.losses import (
    chunked_sum,
    count_pixels,
    decoded_mask_loss,
    summed_cross_entropy,
)
from pixelclip.modeling.mask_decoder import MaskDecoder
from pixelclip.modeling.targets import MaskTargets


def loss_by_gathering(logits, targets):
    """The definition: pick the valid pixels, then the plain mean over pixels and clusters."""
    logits = F.interpolate(logits, targets.shape[-2:], mode="bilinear", align_corners=False)
    valid_mask = targets.any(dim=1)
    picked = [x.permute(0, 2, 3, 1)[valid_mask] for x in (logits, targets)]
    return F.binary_cross_entropy_with_logits(*picked)


def loss_of(decoder, similarity, targets):
    """The loss of (B, K, h, w) and (B, K, Mh, Mw)."""
    image_of_map = torch.arange(len(targets)).repeat_interleave(targets.shape[1])
    valid_mask = targets.any(dim=1)
    return decoded_mask_loss(
        decoder,
        similarity.flatten(0, 1),
        MaskTargets(targets.flatten(0, 1), image_of_map, valid_mask),
        count_pixels(image_of_map, valid_mask).clamp(min=1),
    )


@settings(max_examples=15)
@given(
    st.integers(1, 3), st.integers(1, 20), *[st.integers(1, 8)] * 2, *[st.integers(8, 20)] * 2
)
def test_equals_the_mean_over_gathered_pixels(images, clusters, rows, columns, height, width):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(images, clusters, rows, columns, generator=generator, requires_grad=True)
    targets = torch.rand(images, clusters, height, width, generator=generator) > 0.8
    targets[0, 0, 0, 0] = True
    actual = loss_of(nn.Identity(), logits, targets)
    expected = loss_by_gathering(logits, targets.float())
    torch.testing.assert_close(actual, expected)
    gradients = [torch.autograd.grad(x, logits)[0] for x in (actual, expected)]
    torch.testing.assert_close(*gradients, atol=1e-7, rtol=1e-4)


def test_gradients_reach_the_decoder():
    torch.manual_seed(0)
    decoder = MaskDecoder().double()
    similarity = torch.randn(2, 9, 4, 4, dtype=torch.float64, requires_grad=True)
    targets = torch.rand(2, 9, 20, 20) > 0.7
    actual = loss_of(decoder, similarity, targets)
    decoded = decoder(similarity.flatten(0, 1)[:, None])[:, 0].unflatten(0, (2, 9))
    expected = loss_by_gathering(decoded, targets.double())
    inputs = [similarity, *decoder.parameters()]
    for one, other in zip(
        torch.autograd.grad(actual, inputs), torch.autograd.grad(expected, inputs), strict=True
    ):
        # The loss itself is computed in float32.
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_without_valid_pixels_it_is_zero_with_zero_gradients():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = loss_of(nn.Identity(), logits, torch.zeros(2, 3, 8, 8, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_large_logits_stay_finite():
    logits = torch.tensor([-1e4, 1e4]).view(2, 1, 1, 1).expand(2, 1, 4, 4).requires_grad_()
    targets = torch.tensor([True, False]).view(2, 1, 1).expand(2, 4, 4)
    loss = summed_cross_entropy(logits, targets, torch.ones_like(targets))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(32 * 1e4)
    assert torch.equal(gradient[:, 0], torch.where(targets, -1.0, 1.0))


def test_half_precision_logits_are_lifted():
    logits = torch.randn(2, 1, 4, 4)
    targets = torch.ones(2, 8, 8, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = summed_cross_entropy(logits.bfloat16(), targets, targets)
    expected = summed_cross_entropy(logits.bfloat16().float(), targets, targets)
    torch.testing.assert_close(loss, expected)


def test_single_masks_equal_the_mean_over_their_images_valid_pixels():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(5, 4, 6, generator=generator, requires_grad=True)
    masks = torch.rand(5, 9, 12, generator=generator) > 0.7
    image_index = torch.tensor([0, 0, 2, 2, 2])
    valid_mask = torch.stack([masks[image_index == image].any(dim=0) for image in range(3)])
    targets = MaskTargets(masks, image_index, valid_mask)
    pixels = count_pixels(image_index, valid_mask)
    actual = decoded_mask_loss(nn.Identity(), logits, targets, pixels)
    upsampled = F.interpolate(logits[:, None], (9, 12), mode="bilinear", align_corners=False)[:, 0]
    valid = valid_mask[image_index]
    picked = [(upsampled[n][valid[n]], masks[n][valid[n]]) for n in range(len(masks))]
    values, labels = (torch.cat(parts) for parts in zip(*picked, strict=True))
    assert pixels == len(values)
    expected = F.binary_cross_entropy_with_logits(values, labels.float())
    torch.testing.assert_close(actual, expected)
    gradients = [torch.autograd.grad(x, logits)[0] for x in (actual, expected)]
    torch.testing.assert_close(*gradients)


def test_no_maps_at_all():
    none = torch.zeros(0, dtype=torch.long)
    decoder, maps = MaskDecoder(), torch.zeros(0, 4, 4, requires_grad=True)
    no_masks = torch.zeros(0, 8, 8, dtype=torch.bool)
    targets = MaskTargets(no_masks, none, torch.zeros(2, 8, 8, dtype=torch.bool))
    loss = decoded_mask_loss(decoder, maps, targets, torch.tensor(1))
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad.abs().sum() == 0 for p in decoder.parameters())


class MatrixProducts(TorchDispatchMode):
    """Number formats of the matrix products inside; the decoder joins its kernels with them."""

    def __init__(self):
        super().__init__()
        self.dtypes = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in (torch.ops.aten.bmm.default, torch.ops.aten.mm.default):
            self.dtypes += [a.dtype for a in args]
        return function(*args, **(kwargs or {}))


def gradients_under_autocast(decoder, loss_of_decoder, enabled=True):
    decoder.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled):
        loss = loss_of_decoder()
    loss.backward()
    return {name: p.grad for name, p in decoder.named_parameters()}


def test_the_decoders_gradient_is_not_computed_under_autocast():
    torch.manual_seed(0)
    decoder = MaskDecoder()
    similarity = torch.rand(6, 10, 10)
    image_index = torch.zeros(6, dtype=torch.long)
    valid_mask = torch.ones(1, 24, 24, dtype=torch.bool)
    targets = MaskTargets(torch.rand(6, 24, 24) > 0.7, image_index, valid_mask)
    # A power of two, by which bfloat16 divides exactly.
    pixels = torch.tensor(2.0**12)

    def loss():
        return decoded_mask_loss(decoder, similarity, targets, pixels)

    def loss_of_one_graph():
        decoded = decoder(similarity[:, None])
        return summed_cross_entropy(decoded, targets.masks, valid_mask[image_index]) / pixels

    with MatrixProducts() as products:
        gradients = gradients_under_autocast(decoder, loss)
    assert products.dtypes
    assert set(products.dtypes) == {torch.float32}
    in_a_backward_pass = gradients_under_autocast(decoder, loss_of_one_graph)
    in_float32 = gradients_under_autocast(decoder, loss, enabled=False)
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, in_a_backward_pass[name], atol=0, rtol=1e-6, msg=name)
        error = (gradient - in_float32[name]).norm() / in_float32[name].norm()
        assert error < 0.05, name


def make_problem(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    items = torch.randn(count, 3, generator=generator, requires_grad=True)
    weight = torch.randn(3, 2, generator=generator, requires_grad=True)
    bias = torch.randn(2, generator=generator, requires_grad=True)
    scale = torch.randn(count, generator=generator)

    def partial_sum(chunk, indices):
        return ((chunk @ weight + bias).sin().sum(dim=1) * scale[indices]).sum()

    return partial_sum, items, [weight, bias]


@settings(max_examples=20)
@given(st.integers(0, 20), st.integers(1, 25))
def test_equals_the_undivided_sum_in_value_and_gradients(count, chunk_size):
    partial_sum, items, parameters = make_problem(count)
    actual = chunked_sum(partial_sum, items, parameters, chunk_size)
    expected = partial_sum(items, slice(0, count))
    torch.testing.assert_close(actual, expected)
    for one, other in zip(
        torch.autograd.grad(3 * actual, [items, *parameters]),
        torch.autograd.grad(3 * expected, [items, *parameters]),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_each_item_is_seen_once_in_chunks():
    sizes = []

    def partial_sum(chunk, indices):
        sizes.append(len(chunk))
        return chunk.sum()

    chunked_sum(partial_sum, torch.ones(10, 2, requires_grad=True), [], 4).backward()
    assert sizes == [4, 4, 2]


def test_frozen_parameters_get_no_gradient():
    partial_sum, items, (weight, bias) = make_problem(5)
    weight.requires_grad_(False)
    chunked_sum(partial_sum, items.detach(), [weight, bias], 2).backward()
    assert weight.grad is None
    assert items.grad is None
    assert bias.grad.abs().sum() > 0


def test_without_gradients_only_the_sum_is_computed():
    partial_sum, items, parameters = make_problem(5)
    expected = partial_sum(items, slice(0, 5)).detach()
    with torch.no_grad():
        actual = chunked_sum(partial_sum, items, parameters, 2)
    torch.testing.assert_close(actual, expected)
    assert not actual.requires_grad


def test_gradients_beyond_the_range_of_float16():
    weight = torch.ones(1, requires_grad=True)

    def partial_sum(chunk, indices):
        return (chunk.half() * weight.half()).float().sum()

    items = torch.full((200, 1000), 4.0)
    chunked_sum(partial_sum, items, [weight], 100).backward()
    assert weight.grad.item() == pytest.approx(800_000, rel=1e-3)  # float16 ends at 65,504


def test_second_derivatives_are_refused():
    partial_sum, items, parameters = make_problem(5)
    total = chunked_sum(partial_sum, items, parameters, 2)
    (gradient,) = torch.autograd.grad(total, items, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient.sum().backward()


def test_operations_inside_are_counted():
    layer, items = torch.nn.Linear(3, 2), torch.randn(10, 3, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        total = chunked_sum(lambda chunk, _: layer(chunk).sum(), items, [*layer.parameters()], 4)
        total.backward()
    assert counter.get_total_flops() == 3 * 2 * 10 * 3 * 2
