"""Real disks without room, and folders that cannot be written."""

import contextlib
import errno
import json
import logging
import os
import resource
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from pixelclip.checkpoint import PixelCLIPCheckpointer
from pixelclip.data.sa1b_index import build_tar_index, load_tar_index
from pixelclip.engine import Trainer
from pixelclip.engine.hooks import IterationLog
from pixelclip.engine.retrying_writes import RetryingCheckpointer
from pixelclip.evaluation.result_cache import DatasetResult, load_result, save_result
from pixelclip.evaluation.timed_inference import Speed
from pixelclip.utils.atomic_write import atomic_writer

from ..data.sa1b_files import write_tar

vit_only = pytest.mark.parametrize("tiny_config_of_each", ["vit"], indirect=True)


@contextlib.contextmanager
def mounted(folder, size):
    """A file system in memory of the given size; skips where none can be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder):
    """Leave no byte free."""
    with contextlib.suppress(OSError), open(folder / "filler", "ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert shutil.disk_usage(folder).free == 0


class full_disk:  # noqa: N801 (a context)
    number = errno.ENOSPC

    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        fill(self.folder)

    def __exit__(self, *_):
        (self.folder / "filler").unlink()


class read_only_file_system:  # noqa: N801
    number = errno.EROFS

    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        subprocess.run(["mount", "-o", "remount,ro", str(self.folder)], check=True)

    def __exit__(self, *_):
        subprocess.run(["mount", "-o", "remount,rw", str(self.folder)], check=True)


class no_permission:  # noqa: N801
    """The folder belongs to root and this process does not, for a while."""

    number = errno.EACCES

    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        os.chmod(self.folder, 0o755)
        os.seteuid(65534)

    def __exit__(self, *_):
        os.seteuid(0)


FAULTS = [full_disk, read_only_file_system, no_permission]


@pytest.fixture
def disk():
    """2 MiB, below a folder that every user may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        with mounted(folder / "disk", "2m") as disk:
            yield disk
    finally:
        shutil.rmtree(folder)


def weights(value):
    return {"model": {f"w{i}": torch.full((30_000,), float(value)) for i in range(3)}}


def save_weights(folder, value):
    with atomic_writer(folder / "model.pth") as file:
        torch.save(weights(value), file)


RESULT_SIZE = 3000  # classes: more than a block


def result(value):
    metrics = {"sem_seg": {f"IoU-{i}": float(value) for i in range(RESULT_SIZE)}}
    return DatasetResult(metrics, 3, Speed(1.0, 1.0, 1.0))


def write_result(folder, value):
    save_result(str(folder), "scenes", {"weights": "w"}, result(value))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    ("write", "name"), [(save_weights, "model.pth"), (write_result, "scenes.json")]
)
def test_the_file_before_stays_whole_and_the_error_names_path_and_space(disk, fault, write, name):
    write(disk, 1)
    before = (disk / name).read_bytes()
    with fault(disk), pytest.raises(OSError) as error:
        write(disk, 2)
    assert error.value.errno == fault.number
    assert error.value.filename == str(disk / name)
    assert "cannot be written: " in str(error.value) and "MiB free there" in str(error.value)
    assert (disk / name).read_bytes() == before
    assert os.listdir(disk) == [name]
    write(disk, 3)  # the condition has ended
    assert (disk / name).read_bytes() != before


def test_a_limit_on_file_sizes_is_a_full_disk_too(tmp_path):
    """EFBIG, which needs no rights to be had."""
    save_weights(tmp_path, 1)
    before = (tmp_path / "model.pth").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(OSError, match=r"cannot be written: File too large.*model\.pth"):
            save_weights(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "model.pth").read_bytes() == before
    assert os.listdir(tmp_path) == ["model.pth"]


@pytest.mark.parametrize("fault", FAULTS)
def test_an_index_that_cannot_be_kept_is_built_each_time(disk, fault, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(disk / "cache"))
    write_tar(disk / "a.tar", {"1.jpg": b"i", "1.json": b"j"})
    with fault(disk):
        assert len(build_tar_index(str(disk / "a.tar")).table) == 1
        assert load_tar_index(str(disk / "a.tar")) is None
    assert "cannot be kept" in caplog.text
    build_tar_index(str(disk / "a.tar"))
    assert load_tar_index(str(disk / "a.tar")) is not None


def test_other_errors_within_the_block_keep_their_words(tmp_path):
    with pytest.raises(PermissionError, match="^.Errno 13. mine: 'elsewhere'$"), atomic_writer(
        tmp_path / "file"
    ):
        raise PermissionError(errno.EACCES, "mine", "elsewhere")


class FillDisk(HookBase):
    """No byte is free after the iterations from ``first`` to ``last``, counted from 0."""

    def __init__(self, folder, first, last):
        self.folder, self.first, self.last = folder, first, last

    def before_step(self):
        if self.trainer.iter == self.first:
            fill(self.folder)
        if self.trainer.iter == self.last + 1:
            (self.folder / "filler").unlink()


def scalars_of(folder):
    """Iterations of the total loss that the folder's TensorBoard files have."""
    return {
        event.step + 1
        for path in folder.glob("events.*")
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
        if value.tag == "total_loss"
    }


@vit_only
def test_training_continues_when_the_disk_is_full_and_loses_nothing(
    train_config, tmp_path, monkeypatch, caplog
):
    train_config.merge_from_list(["SOLVER.MAX_ITER", 9, "SOLVER.CHECKPOINT_PERIOD", 2])
    train_config.TEST.EVAL_PERIOD = 4
    monkeypatch.setattr(RetryingCheckpointer, "RETRY_PERIOD", 5)
    build_hooks = Trainer.build_hooks
    monkeypatch.setattr(
        Trainer, "build_hooks", lambda self: _write_every_iteration(build_hooks(self))
    )
    train_and_check(train_config, tmp_path)
    assert "could not be saved: [Errno 28] cannot be written: No space left" in caplog.text
    assert "(0.0 MiB free there): '" in caplog.text
    assert "Training continues" in caplog.text


def _write_every_iteration(hooks):
    hooks[-1]._period = 1
    return hooks


def train_and_check(cfg, tmp_path):
    torch.manual_seed(0)
    Trainer(cfg).train()
    expected = Path(cfg.OUTPUT_DIR)
    with mounted(tmp_path / "disk", "300m") as disk:
        cfg.OUTPUT_DIR = str(disk)
        torch.manual_seed(0)
        trainer = Trainer(cfg)
        # Full when the checkpoints of iterations 4 and 6 are due, and the evaluation of 4.
        trainer.register_hooks([FillDisk(disk, 3, 5)])
        trainer.train()
        names = {path.name for path in disk.glob("*.pth")}
        # That of iteration 4 and 6 were missed, that of 7 was due anyway.
        assert names == {"model_0000001.pth", "model_0000007.pth", "model_final.pth"}
        assert (disk / "last_checkpoint").read_text() == "model_final.pth"
        logs = [(folder / "iterations.jsonl").read_text() for folder in (disk, expected)]
        assert logs[0] == logs[1] and logs[0].count("\n") == 9
        metrics = map(json.loads, (disk / "metrics.json").read_text().splitlines())
        assert {m["iteration"] for m in metrics if "total_loss" in m} == set(range(9))
        assert {1, 2, 3, 8, 9} <= scalars_of(disk)
        assert (disk / "evaluation" / "benchmark.json").exists()


@vit_only
def test_the_last_checkpoint_waits_for_room(train_config, tmp_path, monkeypatch, caplog):
    train_config.merge_from_list(["SOLVER.MAX_ITER", 2, "SOLVER.CHECKPOINT_PERIOD", 50])
    train_config.DATASETS.TEST = ()
    with mounted(tmp_path / "disk", "200m") as disk:
        train_config.OUTPUT_DIR = str(disk)
        pauses = []

        def pause(seconds):
            pauses.append(seconds)
            if len(pauses) == 3:
                (disk / "filler").unlink()

        monkeypatch.setattr("pixelclip.engine.retrying_writes.time.sleep", pause)
        trainer = Trainer(train_config)
        trainer.register_hooks([FillDisk(disk, 1, 99)])
        trainer.train()
        assert pauses == [60.0] * 3
        assert os.listdir(disk).count("model_final.pth") == 1
        assert "free some space" in caplog.text
        # Without room it is an error in the end.
        pauses.extend(range(5))
        monkeypatch.setattr(RetryingCheckpointer, "FINAL_ATTEMPTS", 2)
        trainer = Trainer(train_config)
        trainer.register_hooks([FillDisk(disk, 1, 99)])
        with pytest.raises(OSError, match=r"No space left.*model_final\.pth"):
            trainer.train()


def test_a_missed_checkpoint_is_saved_later(tiny_model, tmp_path, monkeypatch, caplog):
    hook = RetryingCheckpointer(PixelCLIPCheckpointer(tiny_model, str(tmp_path)), 1000)
    hook.max_iter = 5000
    save = PixelCLIPCheckpointer.save

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    for iteration in range(1300):
        is_full = 990 < iteration < 1150
        monkeypatch.setattr(PixelCLIPCheckpointer, "save", fail if is_full else save)
        hook.step(iteration)
    assert [path.name for path in tmp_path.glob("*.pth")] == ["model_0001199.pth"]
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 2  # at 1000 and 1100


def test_only_a_runs_latest_checkpoints_are_kept_where_asked(tiny_model, tmp_path):
    others = {"model_0000001.pth", "model_final.pth", "my_model_0000001.pth"}
    for name in others:
        (tmp_path / name).touch()
    checkpointer = PixelCLIPCheckpointer(tiny_model, str(tmp_path))
    hook = RetryingCheckpointer(checkpointer, 1, max_to_keep=2)
    for iteration in range(2, 5):
        hook.step(iteration)
    kept = {"model_0000003.pth", "model_0000004.pth", *others}
    assert {path.name for path in tmp_path.glob("*.pth")} == kept
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000004.pth"


def test_checkpoints_saved_after_errors_count_among_those_to_keep(
    tiny_model, tmp_path, monkeypatch
):
    save, failing = PixelCLIPCheckpointer.save, {"model_0000001", "model_final"}

    def save_or_fail(self, name, **kwargs):
        if name in failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, name, **kwargs)

    monkeypatch.setattr(PixelCLIPCheckpointer, "save", save_or_fail)
    monkeypatch.setattr("pixelclip.engine.retrying_writes.time.sleep", lambda _: None)
    monkeypatch.setattr(RetryingCheckpointer, "RETRY_PERIOD", 3)
    hook = RetryingCheckpointer(
        PixelCLIPCheckpointer(tiny_model, str(tmp_path)), 2, max_iter=6, max_to_keep=1
    )
    for iteration in range(5):
        hook.step(iteration)
    # That of iteration 3 made up for the one of 2, and had to make room for that of 4.
    assert [path.name for path in tmp_path.glob("*.pth")] == ["model_0000003.pth"]
    with pytest.raises(OSError, match="No space left"):
        hook.step(5)  # in many attempts, none of which may remove what it has just saved
    assert [path.name for path in tmp_path.glob("*.pth")] == ["model_0000005.pth"]
    assert hook.period == 2


def test_the_log_of_iterations_keeps_its_lines_until_there_is_room(disk):
    hook = IterationLog(str(disk), 0.1)
    with EventStorage() as storage:
        hook.trainer = type("T", (), {"storage": storage, "iter": 0})
        (disk / "iterations.jsonl").write_text("")
        for hook.trainer.iter in range(400):
            if hook.trainer.iter == 50:
                fill(disk)
            storage.put_scalar("total_loss", 0.123456789)
            hook.after_step()
        text = (disk / "iterations.jsonl").read_text()
        assert text.endswith("\n") and 50 <= text.count("\n") < 400
        (disk / "filler").unlink()
        hook.after_step()
    lines = (disk / "iterations.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [*range(1, 401), 400]


@vit_only
def test_results_that_cannot_be_stored_are_in_the_log(train_config, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with mounted(tmp_path / "disk", "2m") as disk:
        train_config.OUTPUT_DIR = str(disk)
        (disk / "evaluation").mkdir()
        model = Trainer.build_model(train_config)
        fill(disk)
        with pytest.raises(OSError, match=r"No space left.*three_images_sem_seg\.json"):
            Trainer.test(train_config, model)
        assert os.listdir(disk / "evaluation") == []
    assert "A result could not be stored" in caplog.text
    assert "Results on three_images_sem_seg" in caplog.text


def test_what_was_read_back_is_what_was_written(disk):
    write_result(disk, 5)
    found = load_result(str(disk), "scenes", {"weights": "w"})
    assert found is not None and np.allclose(list(found.metrics["sem_seg"].values()), 5)
    assert stat.S_IMODE((disk / "scenes.json").stat().st_mode) & 0o400
