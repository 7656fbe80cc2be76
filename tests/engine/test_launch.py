from types import SimpleNamespace

import pytest
import torch

from pixelclip.distributed import COLLECTIVE_TIMEOUT
from pixelclip.engine import launch as module
from pixelclip.engine.launch import launch


def test_without_gpu_it_runs_here_and_says_so_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    calls = []
    arguments = SimpleNamespace(num_gpus=8, num_machines=1)
    launch(calls.append, arguments)
    assert calls == [arguments]
    assert capsys.readouterr().out == "No GPU was found: running in one process on the CPU.\n"


def test_machines_without_gpus_would_not_work_together(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="--num-machines is 2.*torchrun"):
        launch(lambda _: pytest.fail("started"), SimpleNamespace(num_gpus=1, num_machines=2))


def test_more_gpus_than_there_are_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="--num-gpus is 3; this machine has 2"):
        launch(lambda _: pytest.fail("started"), SimpleNamespace(num_gpus=3, num_machines=1))


def test_gpus_and_machines_go_to_detectron2(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    received = {}
    monkeypatch.setattr(
        module, "launch_on_gpus", lambda main, count, **rest: received.update(rest, count=count)
    )
    arguments = SimpleNamespace(
        num_gpus=4, num_machines=2, machine_rank=1, dist_url="tcp://10.0.0.1:1234"
    )
    launch(print, arguments)
    assert received.pop("args") == (arguments,)
    assert received.pop("timeout") == COLLECTIVE_TIMEOUT
    assert received == {
        "count": 4,
        "num_machines": 2,
        "machine_rank": 1,
        "dist_url": "tcp://10.0.0.1:1234",
    }
