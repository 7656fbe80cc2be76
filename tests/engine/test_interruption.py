import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage

from pixelclip.engine import Trainer, training_step
from pixelclip.engine.interruption import StopOnSignal, TrainingInterrupted, signals_for_children
from pixelclip.engine.training_step import TrainingStep
from pixelclip.utils import atomic_write


class At(HookBase):
    """Does something at the start of an iteration, counted from 0."""

    def __init__(self, iteration, action):
        self.iteration, self.action = iteration, action

    def before_step(self):
        if self.trainer.iter == self.iteration:
            self.action()


def interrupt(number=signal.SIGINT):
    os.kill(os.getpid(), number)


def run(cfg, *hooks, resume=False):
    torch.manual_seed(cfg.SEED)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.register_hooks(list(hooks))
    trainer.train()
    return trainer


def log_of(folder):
    return [json.loads(line) for line in (folder / "iterations.jsonl").read_text().splitlines()]


@pytest.fixture
def short_config(train_config):
    """Four iterations, without periodic checkpoints and evaluation."""
    train_config.merge_from_list(["SOLVER.CHECKPOINT_PERIOD", 100, "DATASETS.TEST", ()])
    return train_config


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_a_checkpoint_that_continues_exactly(
    short_config, tmp_path, number, capfd
):
    whole = run(short_config)
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    cfg = short_config.clone()
    cfg.OUTPUT_DIR = str(tmp_path / "interrupted")
    os.mkdir(cfg.OUTPUT_DIR)
    with pytest.raises(TrainingInterrupted, match=r"after iteration 2\."):
        run(cfg, At(1, lambda: interrupt(number)))
    assert "Ctrl-C again" in capfd.readouterr().err
    assert handlers == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    assert [line["iteration"] for line in log_of(Path(cfg.OUTPUT_DIR))] == [1, 2]
    assert (Path(cfg.OUTPUT_DIR) / "last_checkpoint").read_text() == "model_0000001.pth"
    resumed = run(cfg, resume=True)
    assert resumed.start_iter == 2
    assert log_of(Path(cfg.OUTPUT_DIR)) == log_of(Path(short_config.OUTPUT_DIR))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_the_last_iteration_ends_the_training_anyway(short_config):
    trainer = run(short_config, At(3, interrupt))
    assert trainer.iter == 4
    assert (Path(short_config.OUTPUT_DIR) / "last_checkpoint").read_text() == "model_final.pth"


def test_a_second_interruption_stops_at_once_and_leaves_no_half_file(short_config, monkeypatch):
    monkeypatch.setattr(StopOnSignal, "SECONDS_OF_ONE_SIGNAL", 0.0)
    monkeypatch.setattr(atomic_write.os, "fsync", lambda _: interrupt())
    with pytest.raises(KeyboardInterrupt) as caught:
        run(short_config, At(1, interrupt))
    assert not isinstance(caught.value, TrainingInterrupted)
    assert not list(Path(short_config.OUTPUT_DIR).glob("*model*"))


class Interrupting:
    """A file whose writing is interrupted."""

    def __init__(self, file):
        self._file = file

    def write(self, data):
        interrupt()
        return self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)


def test_an_interruption_in_the_middle_of_writing_is_one(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt), atomic_write.atomic_writer(path) as file:
        torch.save({"weights": torch.zeros(1000)}, Interrupting(file))
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["weights.pth"]


def test_one_key_press_that_comes_twice_is_one(short_config):
    with pytest.raises(TrainingInterrupted):
        run(short_config, At(1, lambda: [interrupt(), interrupt()]))


def test_a_checkpoint_that_cannot_be_written_is_an_error(short_config, monkeypatch):
    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="no space"):
        run(short_config, At(1, interrupt))


def test_other_threads_train_without_signals(short_config):
    finished = []
    thread = threading.Thread(target=lambda: finished.append(run(short_config).iter))
    thread.start()
    thread.join()
    assert finished == [4]


def test_processes_agree_on_the_iteration(monkeypatch):
    """The wish travels with the losses: no further exchange in a step."""
    model = torch.nn.Linear(1, 1)
    model.device = torch.device("cpu")
    model.forward = lambda _: {"loss": model.weight.sum()}
    step = TrainingStep(model, [[]], torch.optim.SGD(model.parameters(), lr=1.0))

    def share(facts, *_):
        own = {name: float(value) for name, value in facts.items()}
        return [own, {**own, training_step._IS_ASKED_TO_STOP: 1.0}]

    monkeypatch.setattr(training_step, "share_facts", share)
    step.iter = 0
    with EventStorage(0):
        step.run_step()
    assert step.must_stop and not step.is_asked_to_stop


def wait_for_interruption(ready):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a process of torch's spawn
    try:
        ready.set()
        time.sleep(60)
    except KeyboardInterrupt:
        os._exit(7)


def test_a_launcher_passes_signals_on_and_waits():
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    child = context.Process(target=wait_for_interruption, args=(ready,))
    with pytest.raises(KeyboardInterrupt), signals_for_children():
        child.start()
        ready.wait(60)
        interrupt()
        child.join()
    assert child.exitcode == 7
    with signals_for_children():
        pass
