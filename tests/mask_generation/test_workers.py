import os

import pytest
import torch

from pixelclip.mask_generation.workers import choose_devices, run_tasks
from pixelclip.utils.shards import Shard

CPU = torch.device("cpu")


def test_a_network_gets_a_gpu_for_each_process(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(device) for device in choose_devices(True, 3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert len(choose_devices(True, None)) == 2
    assert set(choose_devices(False, 3)) == {torch.device("cpu")}
    assert choose_devices(True, None, Shard(5, 8, 1, 4)) == [torch.device("cuda", 1)]
    assert choose_devices(True, 2, Shard(5, 8, 2, 4)) == [torch.device("cuda", 0)] * 2
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert choose_devices(True, None) == [torch.device("cpu")]
    assert len(choose_devices(False, None)) == 6
    assert len(choose_devices(False, None, Shard(1, 8, 1, 4))) == 1
    assert len(choose_devices(False, None, Shard(1, 8, 1, 32))) == 1
    with pytest.raises(ValueError, match="0 workers"):
        choose_devices(True, 0)


def square(number, device):
    """The result, and where it was computed."""
    if number < 0:
        raise ValueError("negative")
    return number * number, (str(device), os.getpid())


def test_one_worker_is_this_process_and_tasks_are_done_when_asked_for():
    results = run_tasks(square, iter([2, -1]), [CPU])
    assert next(results) == (4, ("cpu", os.getpid()))
    with pytest.raises(ValueError, match="negative"):
        next(results)


@pytest.mark.slow
def test_workers_share_the_tasks_and_have_a_device_each():
    devices = [CPU, torch.device("cuda", 1)]
    results = list(run_tasks(square, iter(range(40)), devices))
    assert [result for result, _ in results] == [number * number for number in range(40)]
    origins = {origin for _, origin in results}
    assert len(origins) == len({process for _, process in origins}) == 2
    assert os.getpid() not in {process for _, process in origins}
    assert {device for device, _ in origins} == {"cpu", "cuda:1"}
