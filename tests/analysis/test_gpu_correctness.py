"""The CPU agrees with itself, and what differs is noticed."""

import pytest
import torch

from pixelclip.analysis import gpu_correctness
from pixelclip.analysis.checks import FAILED, PASSED, SKIPPED
from pixelclip.analysis.gpu_correctness import (
    Outcome,
    check_formats,
    check_options,
    check_stages,
    compare_calls,
    make_batch,
    record_stages,
    repeat_call,
    take_step,
)

from ..conftest import make_tiny_config


class Fixed:
    """In the place of a configuration."""

    def __init__(self, cfg):
        self.cfg = cfg

    def load(self):
        return self.cfg.clone()


@pytest.mark.parametrize("kind", ["vit", pytest.param("convnext", marks=pytest.mark.slow)])
def test_each_stage_of_the_cpu_agrees_with_itself(request, kind):
    cfg = make_tiny_config(request.getfixturevalue(f"tiny_{kind}_json"))
    lines = list(check_stages({"tiny": Fixed(cfg)}, "cpu"))
    assert {line.status for line in lines} == {PASSED}, lines
    found = {line.what for line in lines}
    for stage in ("momentum update", "teacher", "text encoder", "Sinkhorn", "targets"):
        assert f"tiny, {stage}" in found
    assert {"tiny, upsampling and labels", "k-means"} <= found


def test_gradients_reach_inputs_and_parameters(tiny_config):
    calls = {call.stage[2]: call for call in record_stages(tiny_config)}
    decoder = repeat_call(calls["mask decoder and loss, both ways"], "cpu")
    assert decoder.values[0].shape == ()
    # similarity, the number of pixels, and the decoder's parameters
    assert len(decoder.gradients) > 10
    assert all(gradient.norm() > 0 for gradient in decoder.gradients)
    assert not repeat_call(calls["teacher"], "cpu").gradients
    assert repeat_call(calls["momentum update"], "cpu").values


@pytest.mark.parametrize(
    ("change", "is_seen"),
    [
        (lambda o: o, False),
        (lambda o: Outcome([v * (1 + 1e-3) for v in o.values], o.gradients), True),
        (lambda o: Outcome(o.values, [-g for g in o.gradients]), True),
        (lambda o: Outcome([v * torch.nan for v in o.values], o.gradients), True),
    ],
)
def test_a_stage_that_differs_on_the_device_fails(tiny_config, monkeypatch, change, is_seen):
    call = next(c for c in record_stages(tiny_config) if c.stage[2] == "student, forward")
    original = repeat_call

    def repeat(call, device):
        outcome = original(call, "cpu")
        return change(outcome) if device == "device" else outcome

    monkeypatch.setattr(gpu_correctness, "repeat_call", repeat)
    assert compare_calls([call], "device").is_good != is_seen


@pytest.mark.slow
def test_formats_and_options_agree_on_the_cpu(tiny_config):
    models = {"tiny": Fixed(tiny_config)}
    statuses = {line.what: line.status for line in check_formats(models, "cpu")}
    assert statuses == {
        "tiny, TF32": SKIPPED,
        "tiny, bfloat16": PASSED,
        "tiny, float16": SKIPPED,
    }
    for line in check_options(models, "cpu"):
        assert line.status == PASSED, line


def test_another_loss_fails(tiny_config, monkeypatch):
    def take_other_step(cfg, number_format="float32", parts=1):
        loss, gradients = take_step(cfg)
        return loss * (1.02 if number_format == "bfloat16" else 1), gradients

    monkeypatch.setattr(gpu_correctness, "take_step", take_other_step)
    lines = list(check_formats({"tiny": Fixed(tiny_config)}, "cpu"))
    assert [line.status for line in lines] == [SKIPPED, FAILED, SKIPPED]


def test_an_error_in_a_stage_is_a_failed_line(tiny_config, monkeypatch):
    def raise_error(call, device):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(gpu_correctness, "repeat_call", raise_error)
    lines = list(check_stages({"tiny": Fixed(tiny_config)}, "cpu"))
    assert lines[0].result == "OutOfMemoryError: CUDA out of memory."
    assert [line.status for line in lines[-2:]] == [PASSED, PASSED]  # a step and k-means


def test_batches_follow_from_their_seed(tiny_config):
    first, again, other = (make_batch(tiny_config, (3, 0), seed) for seed in (1, 1, 2))
    assert [len(image["masks"]) for image in first] == [3, 0]
    assert first[0]["masks"].flatten(1).any(dim=1).all()
    assert torch.equal(first[0]["image"], again[0]["image"])
    assert not torch.equal(first[0]["image"], other[0]["image"])
    assert first[0]["image"].float().std() > 20
