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
    ProgressBar,
    SeedEveryIteration,
    WarnOfCollapse,
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


def watch_for_collapse(fractions):
    """Let the hook see each iteration's share of masks in the fullest cluster."""
    hook = WarnOfCollapse()
    with EventStorage(0) as storage:
        for iteration, fraction in enumerate(fractions):
            if fraction is not None:
                storage.put_scalar("clusters/largest", fraction)
            hook.trainer = SimpleNamespace(iter=iteration, storage=storage)
            hook.after_step()
            storage.step()


def test_a_collapse_of_the_clustering_is_warned_of_once_a_period(caplog):
    period = WarnOfCollapse.PERIOD
    watch_for_collapse([0.9] * (period - 1))
    watch_for_collapse([0.9, 0.2, 0.3] * period)  # single batches may be lopsided
    watch_for_collapse([None] * period)  # without clusters, or without masks
    assert not caplog.records
    watch_for_collapse([0.9] * (2 * period))
    assert len(caplog.records) == 2
    assert "a single cluster took 90% of a batch's masks" in caplog.text


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
            storage.put_scalar("lr", 7.0, smoothing_hint=False)  # Detectron2's, of another group
            hook.after_step()
            trainer.optimizer = optimizer(0.5)
    return storage


def logged(folder):
    return [json.loads(line) for line in (folder / "iterations.jsonl").read_text().splitlines()]


def test_one_exact_line_per_iteration(tmp_path):
    storage = log_iterations(tmp_path, 0, 3)
    assert storage.latest()["lr"][0] == 0.05, "the same in all logs"
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


def count_skipped(hook, skipped, position=0):
    """Count after a step of which all processes know that so many records were skipped."""
    hook._step.skipped = Counter(skipped)
    with EventStorage(0) as storage:
        loader = SimpleNamespace(position=position)
        hook.trainer = SimpleNamespace(data_loader=loader, storage=storage)
        hook.after_step()
        return storage.latest()["skipped_records"][0]


def test_skipped_records_of_all_runs_are_counted(caplog):
    first = CountSkippedRecords(SimpleNamespace(), max_fraction=0.5)
    assert count_skipped(first, {"image": 2, "masks": 1}) == 3
    second = CountSkippedRecords(SimpleNamespace(), max_fraction=0.5)
    second.load_state_dict(first.state_dict())
    assert count_skipped(second, {}) == 3
    assert count_skipped(second, {"image": 1}) == 4
    second.after_train()
    assert "Skipped 4 corrupt records (image: 3, masks: 1)" in caplog.text


def test_too_many_corrupt_records_stops_the_training():
    hook = CountSkippedRecords(SimpleNamespace(), max_fraction=0.2)
    assert count_skipped(hook, {"image": 50, "masks": 9}, position=40) == 59  # too few to judge
    assert count_skipped(hook, {"image": 15, "masks": 10}, position=100) == 25  # exactly the share
    problem = r"26 of the 126 .*image: 16, masks: 10.*MAX_CORRUPT_FRACTION, 0\.2"
    with pytest.raises(RuntimeError, match=problem):
        count_skipped(hook, {"image": 16, "masks": 10}, position=100)


def test_the_bar_begins_where_the_training_does(capsys):
    hook = ProgressBar("practice")
    with EventStorage(3) as storage:
        hook.trainer = SimpleNamespace(start_iter=3, max_iter=5, storage=storage)
        hook.before_train()
        hook.after_step()  # without a loss
        storage.put_scalar("total_loss", 0.25)
        storage.put_scalar("clusters/largest", 0.3)
        hook.after_step()
        hook.after_train()
    bar = capsys.readouterr().err.split("\r")
    assert bar[1].startswith("practice:  60%")
    assert "practice: 100%" in bar[-1]
    assert "5/5" in bar[-1]
    assert "loss=0.2500, largest_cluster=30%" in bar[-1]


def test_only_the_main_process_shows_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    hook = ProgressBar("practice")
    hook.trainer = SimpleNamespace(start_iter=0, max_iter=5)
    hook.before_train()
    hook.after_train()
    assert capsys.readouterr().err == ""
