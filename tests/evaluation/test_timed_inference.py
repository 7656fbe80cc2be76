from types import SimpleNamespace

import pytest
import torch
from detectron2.evaluation import DatasetEvaluator
from torch import nn

from pixelclip.evaluation import timed_inference
from pixelclip.evaluation.timed_inference import Speed, run_timed_inference


class Clock:
    """A clock that only the model moves."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        clock = SimpleNamespace(perf_counter=lambda: self.now)
        monkeypatch.setattr(timed_inference, "time", clock)


class SlowAtFirst(nn.Module):
    def __init__(self, clock):
        super().__init__()
        self.clock, self.calls, self.modes = clock, 0, []

    def forward(self, inputs):
        self.calls += 1
        self.modes.append((self.training, torch.is_grad_enabled()))
        self.clock.now += 100 if self.calls == 1 else 0.5 * len(inputs)
        return [2 * x for x in inputs]


class Collect(DatasetEvaluator):
    def reset(self):
        self.pairs = []

    def process(self, inputs, outputs):
        self.pairs += zip(inputs, outputs, strict=True)

    def evaluate(self):
        return {"task": {"sum": sum(output for _, output in self.pairs)}}


@pytest.mark.parametrize(("batches", "timed"), [(20, 15), (10, 5), (9, 4), (3, 1), (2, 1)])
def test_speed_leaves_out_the_start(monkeypatch, batches, timed):
    model = SlowAtFirst(Clock(monkeypatch))
    loader = [[index, index] for index in range(batches)]
    metrics, speed = run_timed_inference(model, loader, Collect(), "set")
    assert metrics == {"task": {"sum": 4 * sum(range(batches))}}
    assert speed == Speed(2.0, 2 * timed, 1)


@pytest.mark.parametrize("loader", [[], [[1]]])
def test_no_speed_where_all_is_start(monkeypatch, loader):
    _, speed = run_timed_inference(SlowAtFirst(Clock(monkeypatch)), loader, Collect(), "set")
    assert speed == Speed(None, 0, 1)


def test_the_model_is_evaluated_without_gradients_and_then_trains_on(monkeypatch):
    model = SlowAtFirst(Clock(monkeypatch)).train()
    run_timed_inference(model, [[1], [2]], Collect(), "set")
    assert model.modes == [(False, False)] * 2
    assert model.training


def test_processes_add_up(monkeypatch):
    monkeypatch.setattr(timed_inference.comm, "all_gather", lambda x: [(6, 3.0), (4, 5.0), (0, 9)])
    _, speed = run_timed_inference(SlowAtFirst(Clock(monkeypatch)), [[1]], Collect(), "set")
    assert speed == Speed(10 / 5.0, 10, 3)


def test_a_progress_bar_names_the_data_set(monkeypatch, capsys):
    run_timed_inference(SlowAtFirst(Clock(monkeypatch)), [[1], [2]], Collect(), "my_data_set")
    assert "my_data_set: 100%" in capsys.readouterr().err
