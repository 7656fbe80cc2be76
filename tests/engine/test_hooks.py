import json
from types import SimpleNamespace

import pytest
import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from pixelclip.engine.hooks import IterationLog, MonitorClusters, SeedEveryIteration


def numbers(seed, iteration):
    hook = SeedEveryIteration()
    hook.trainer = SimpleNamespace(seed=seed, iter=iteration)
    hook.before_step()
    return torch.rand(3).tolist()


def test_random_numbers_follow_from_seed_iteration_and_process(monkeypatch):
    torch.rand(7)
    first = numbers(1, 5)
    torch.rand(3)
    assert numbers(1, 5) == first
    assert numbers(1, 6) != first
    assert numbers(2, 5) != first
    monkeypatch.setattr(comm, "get_rank", lambda: 1)
    assert numbers(1, 5) != first


def monitor(usage):
    hook = MonitorClusters()
    with EventStorage(0) as storage:
        model = SimpleNamespace(cluster_usage=torch.tensor(usage))
        hook.trainer = SimpleNamespace(model=model, storage=storage)
        hook.after_step()
        return {name: value for name, (value, _) in storage.latest().items()}


def test_cluster_shares():
    assert monitor([3, 0, 1, 0]) == {"clusters/used": 0.5, "clusters/largest": 0.75}


def test_a_batch_without_masks_has_no_shares():
    assert monitor([0, 0, 0, 0]) == {}


@pytest.mark.parametrize("is_main", [True, False])
def test_one_exact_line_per_iteration_from_the_main_process(tmp_path, monkeypatch, is_main):
    monkeypatch.setattr(comm, "is_main_process", lambda: is_main)
    hook = IterationLog(str(tmp_path))
    with EventStorage(0) as storage:
        for iteration in range(3):
            storage.put_scalar("total_loss", 0.1 * iteration)
            hook.trainer = SimpleNamespace(iter=iteration, storage=storage)
            hook.after_step()
    if not is_main:
        assert not list(tmp_path.iterdir())
        return
    lines = (tmp_path / "iterations.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"iteration": i + 1, "total_loss": 0.1 * i} for i in range(3)
    ]
