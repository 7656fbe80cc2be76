import functools
import json
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from pixelclip.engine.hooks import (
    CountSkippedRecords,
    IterationLog,
    MonitorClusters,
    ProgressBar,
    SeedEveryIteration,
)


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


def monitor(*usages):
    """Scalars after steps whose batches had so many masks in each cluster."""
    hook = MonitorClusters()
    model = SimpleNamespace(
        assignment_entropy=torch.tensor(0.25), teacher_agreement=torch.tensor(0.5)
    )
    with EventStorage(0) as storage:
        hook.trainer = SimpleNamespace(model=model, storage=storage)
        for usage in usages:
            model.cluster_usage = torch.tensor(usage)
            hook.after_step()
        return {name: value for name, (value, _) in storage.latest().items()}


def test_cluster_shares():
    assert monitor([3, 0, 1, 0]) == {
        "clusters/used": 0.5,
        "clusters/largest": 0.75,
        "clusters/assignment_entropy": 0.25,
        "teacher/agreement": 0.5,
    }


def test_a_batch_without_masks_has_no_shares():
    assert monitor([0, 0, 0, 0]) == {"teacher/agreement": 0.5}


def test_a_collapse_of_the_clustering_is_warned_of_once_a_period(caplog):
    # Single batches may be lopsided: they have few masks.
    monitor(*([[9, 0], [0, 9]] * MonitorClusters.PERIOD))
    monitor(*([[9, 0]] * (MonitorClusters.PERIOD - 1)))
    monitor(*([[]] * MonitorClusters.PERIOD))  # without clusters
    monitor(*([[0, 0]] * MonitorClusters.PERIOD))  # without masks
    assert not caplog.records
    monitor(*([[1, 9, 0]] * (2 * MonitorClusters.PERIOD)))
    assert len(caplog.records) == 2
    assert "collapsed: cluster 1 took 90% of the 1000 masks of the last 100" in caplog.text


def optimizer(factor):
    groups = [{"lr": 0.0, "initial_lr": 0.0}, {"lr": 0.02 * factor, "initial_lr": 0.02}]
    return SimpleNamespace(param_groups=groups)


def log_iterations(folder, first, last):
    hook = IterationLog(str(folder), base_lr=0.1)
    with EventStorage(0) as storage:
        trainer = SimpleNamespace(start_iter=first, storage=storage, optimizer=optimizer(0.5))
        hook.trainer = trainer
        hook.before_train()
        for trainer.iter in range(first, last):
            hook.before_step()
            storage.put_scalar("total_loss", 0.1 * trainer.iter)
            trainer.optimizer = optimizer(0.4)  # the schedule moves on before our hook
            hook.after_step()
            trainer.optimizer = optimizer(0.5)


def logged(folder):
    return [json.loads(line) for line in (folder / "iterations.jsonl").read_text().splitlines()]


def test_one_exact_line_per_iteration(tmp_path):
    log_iterations(tmp_path, 0, 3)
    expected = [{"iteration": i + 1, "lr": 0.05, "total_loss": 0.1 * i} for i in range(3)]
    assert logged(tmp_path) == expected


def test_only_the_main_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    log_iterations(tmp_path, 0, 3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("start", "expected"), [(2, [1, 2, 3, 4]), (0, [1, 2, 3, 4])])
def test_lines_to_come_and_cut_lines_are_removed_at_the_start(tmp_path, start, expected):
    log_iterations(tmp_path, 0, 3)
    with open(tmp_path / "iterations.jsonl", "a") as file:
        file.write('{"iteration": 4, "tot')
    log_iterations(tmp_path, start, 4)
    assert [line["iteration"] for line in logged(tmp_path)] == expected


def count_skipped(hook, *skipped_by_process, monkeypatch, position=0):
    gathered = [dict(skipped) for skipped in skipped_by_process]
    monkeypatch.setattr(comm, "all_gather", lambda own: gathered)
    with EventStorage(0) as storage:
        loader = SimpleNamespace(skipped=Counter(skipped_by_process[0]), position=position)
        hook.trainer = SimpleNamespace(data_loader=loader, storage=storage)
        hook.after_step()
        return storage.latest()["skipped_records"][0]


def test_skipped_records_of_all_processes_and_runs_are_counted(monkeypatch, caplog):
    first = CountSkippedRecords(max_share=0.5)
    counts = [{"image": 2}, {"masks": 1}]
    assert count_skipped(first, *counts, monkeypatch=monkeypatch) == 3
    second = CountSkippedRecords(max_share=0.5)
    second.load_state_dict(first.state_dict())
    assert count_skipped(second, {}, {}, monkeypatch=monkeypatch) == 3
    assert count_skipped(second, {"image": 1}, {}, monkeypatch=monkeypatch) == 4
    second.after_train()
    assert "Skipped 4 broken records (image: 3, masks: 1)" in caplog.text


def test_too_large_a_share_of_broken_records_stops_the_training(monkeypatch):
    hook = CountSkippedRecords(max_share=0.2)
    count = functools.partial(count_skipped, hook, monkeypatch=monkeypatch)
    assert count({"image": 50}, {"masks": 9}, position=40) == 59  # too few to judge
    assert count({"image": 15}, {"masks": 10}, position=100) == 25  # exactly the share
    with pytest.raises(RuntimeError, match=r"26 of the 126 .*image: 16, masks: 10.*0\.2.*MAX_BROK"):
        count({"image": 16}, {"masks": 10}, position=100)


def test_the_bar_begins_where_the_training_does(capsys):
    hook = ProgressBar("practice")
    with EventStorage(3) as storage:
        hook.trainer = SimpleNamespace(start_iter=3, max_iter=5, storage=storage)
        hook.before_train()
        hook.after_step()  # without a loss
        storage.put_scalar("total_loss", 0.25)
        hook.after_step()
        hook.after_train()
    bar = capsys.readouterr().err.split("\r")
    assert bar[1].startswith("practice:  60%")
    assert "practice: 100%" in bar[-1]
    assert "5/5" in bar[-1]
    assert "loss=0.2500" in bar[-1]


def test_only_the_main_process_shows_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    hook = ProgressBar("practice")
    hook.trainer = SimpleNamespace(start_iter=0, max_iter=5)
    hook.before_train()
    hook.after_train()
    assert capsys.readouterr().err == ""
