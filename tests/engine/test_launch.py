import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed
from detectron2.utils import comm

from pixelclip.engine import launch as module
from pixelclip.engine.launch import launch
from pixelclip.utils.distributed import limit_gloo_group

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "configs" / "pixelclip_vitb16.yaml")


def make_arguments(*overrides, **values):
    defaults = {"config_file": CONFIG, "weights": "", "output": "", "opts": list(overrides)}
    defaults |= {"num_gpus": 1, "num_machines": 1}
    return SimpleNamespace(**{**defaults, **values})


def pretend_gpus(monkeypatch, number):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)


@pytest.mark.parametrize(("gpus", "overrides"), [(0, ()), (2, ("MODEL.DEVICE", "cpu"))])
def test_on_the_cpu_it_runs_here(monkeypatch, gpus, overrides):
    pretend_gpus(monkeypatch, gpus)
    calls = []
    arguments = make_arguments(*overrides, num_gpus=8)
    launch(calls.append, arguments)
    assert calls == [arguments]


def test_machines_without_gpus_would_not_work_together(monkeypatch):
    pretend_gpus(monkeypatch, 0)
    with pytest.raises(ValueError, match="--num-machines is 2.*torchrun"):
        launch(lambda _: pytest.fail("started"), make_arguments(num_machines=2))


def test_more_gpus_than_there_are_is_refused(monkeypatch):
    pretend_gpus(monkeypatch, 2)
    with pytest.raises(ValueError, match="--num-gpus is 3; this machine has 2"):
        launch(lambda _: pytest.fail("started"), make_arguments(num_gpus=3))


def test_gpus_and_machines_go_to_detectron2_with_the_time_limit(monkeypatch):
    pretend_gpus(monkeypatch, 8)
    received, calls = {}, []
    monkeypatch.setattr(
        module,
        "launch_on_gpus",
        lambda main, count, args, **rest: received.update(rest, count=count) or main(*args),
    )
    arguments = make_arguments(
        *("SOLVER.STEP_TIME_LIMIT", "7200.0"),
        num_gpus=4,
        num_machines=2,
        machine_rank=1,
        dist_url="tcp://10.0.0.1:1234",
    )
    launch(calls.append, arguments)
    assert calls == [arguments]
    assert received == {
        "count": 4,
        "num_machines": 2,
        "machine_rank": 1,
        "dist_url": "tcp://10.0.0.1:1234",
        "timeout": timedelta(hours=2),
    }


class GroupAskedForError(Exception):
    pass


@pytest.mark.parametrize(("device", "backend"), [("cpu", "gloo"), ("cuda", "nccl")])
def test_the_backend_under_torchrun_is_that_of_the_configured_device(monkeypatch, device, backend):
    pretend_gpus(monkeypatch, 2)
    settings = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    devices = []
    monkeypatch.setattr(torch.cuda, "set_device", devices.append)
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda _: iter([(None, 1, 2)]))

    def init_process_group(name, *, timeout, **_):
        raise GroupAskedForError(name, timeout)

    monkeypatch.setattr(torch.distributed, "init_process_group", init_process_group)
    arguments = make_arguments("MODEL.DEVICE", device, "SOLVER.STEP_TIME_LIMIT", "90.0")
    with pytest.raises(GroupAskedForError) as caught:
        launch(lambda _: pytest.fail("started"), arguments)
    assert caught.value.args == (backend, timedelta(seconds=90))
    assert devices == ([1] if device == "cuda" else [])


@pytest.mark.parametrize(("restarts", "eval_only"), [(0, False), (1, False), (1, True)])
def test_a_restarted_training_resumes_and_a_restarted_evaluation_repeats(
    monkeypatch, restarts, eval_only
):
    pretend_gpus(monkeypatch, 0)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(restarts))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda _: iter([(None, 0, 1)]))
    for name in ("init_process_group", "destroy_process_group"):
        monkeypatch.setattr(torch.distributed, name, lambda *_, **__: None)
    for name in ("limit_gloo_group", "create_local_process_group"):
        monkeypatch.setattr(module, name, lambda _: None)
    arguments = make_arguments("MODEL.DEVICE", "cpu", eval_only=eval_only, resume=False)
    launch(lambda _: None, arguments)
    assert arguments.resume == (restarts > 0 and not eval_only)


def test_the_gloo_group_next_to_nccl_waits_as_long(monkeypatch):
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "nccl")
    monkeypatch.setattr(torch.distributed, "new_group", lambda **settings: settings)
    monkeypatch.setattr(comm, "_get_global_gloo_group", lambda: pytest.fail("with torch's limit"))
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    limit_gloo_group(timedelta(hours=2))

    def get_world_size(group):
        raise GroupAskedForError(group)

    monkeypatch.setattr(comm.dist, "get_world_size", get_world_size)
    with pytest.raises(GroupAskedForError) as caught:
        comm.all_gather("anything")
    assert caught.value.args == ({"backend": "gloo", "timeout": timedelta(hours=2)},)


FAILING = f"""
from types import SimpleNamespace
from detectron2.utils import comm
from pixelclip.utils.distributed import StepBarrier
from pixelclip.engine.launch import launch

def main(args):
    barrier = StepBarrier(60)
    if comm.get_rank() == 1:
        raise ValueError("the mapper has a bug")
    barrier.wait(1)

overrides = ["MODEL.DEVICE", "cpu"]
config = dict(config_file={CONFIG!r}, weights="", output="", opts=overrides)
launch(main, SimpleNamespace(**config, num_machines=1, num_gpus=1))
"""


@pytest.mark.slow
def test_torchrun_names_the_rank_that_failed_first_and_its_error(tmp_path):
    script = tmp_path / "failing.py"
    script.write_text(FAILING)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    result = subprocess.run(
        [*command, str(script)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 1
    report = result.stderr[result.stderr.index("Root Cause") :]
    assert "rank      : 1 (local_rank: 1)" in report
    assert "ValueError: the mapper has a bug" in report
