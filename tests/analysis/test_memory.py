"""The counted memory is that which torch's allocator gives out."""

import pytest
import torch

from pixelclip.analysis.memory import (
    MemoryModel,
    count_peak_bytes,
    fit_memory_model,
    measure_peak_bytes,
    prepare_step,
)

from ..conftest import SMALL_TRAINING, write_images

CPU = torch.device("cpu")
MIB = 2**20


def make_and_free(number=3):
    """At most two of some tensors of 1 MiB at a time."""
    last = None
    for _ in range(number):
        last = torch.zeros(MIB // 4) + 1 if last is None else last + 1
    return last


@pytest.mark.parametrize("find_peak", [count_peak_bytes, measure_peak_bytes])
def test_what_lives_at_the_same_time_counts(find_peak):
    assert find_peak(CPU, lambda: make_and_free) == pytest.approx(2 * MIB, abs=1000)
    assert find_peak(CPU, lambda: lambda: torch.zeros(MIB)[:5].view(5, 1)) == pytest.approx(
        4 * MIB, abs=99
    )


def test_what_a_backward_pass_needs_counts():
    weight = torch.ones(MIB // 4, requires_grad=True)

    def run():
        (weight.exp().sin() * 2).sum().backward()

    # exp's result, sin's and its double; or on the way back a gradient for each.
    assert 3 * MIB <= count_peak_bytes(CPU, lambda: run) <= 4.1 * MIB


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        pytest.param(("SOLVER.AMP.ENABLED", True), marks=pytest.mark.slow),
        pytest.param(("MODEL.CLIP.ACTIVATION_CHECKPOINTING", True), marks=pytest.mark.slow),
    ],
)
def test_two_small_batches_predict_a_larger_one(tiny_config, tmp_path, overrides):
    write_images(tmp_path / "images", count=4)
    size = "MODEL.CLIP.RESOLUTION", (128, 128)  # so that activations count
    tiny_config.merge_from_list([*SMALL_TRAINING, *size, *overrides])
    places = tmp_path / "images", tmp_path
    model = fit_memory_model(tiny_config, *places)
    assert model.per_image > 0
    measured = measure_peak_bytes(CPU, lambda: prepare_step(tiny_config, 6, *places))
    assert model.peak(6) == pytest.approx(measured, rel=0.15)


def test_the_largest_batch_fits():
    model = MemoryModel(fixed=10.0, per_image=3.0)
    assert [model.largest_batch(n) for n in (0, 10, 12.9, 13, 19)] == [0, 0, 0, 1, 3]
    assert model.peak(model.largest_batch(100)) <= 100 < model.peak(model.largest_batch(100) + 1)
