import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from pixelclip.modeling.chunked_sum import chunked_sum


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
