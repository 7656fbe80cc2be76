"""Several processes, of which one dies, fails, is slow, freezes, or has other data or settings."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase

from pixelclip import PixelCLIP
from pixelclip.data.mapper import MaskDatasetMapper
from pixelclip.engine.interruption import TrainingInterrupted
from pixelclip.utils.distributed import check_same, run_on_all_ranks

from ..conftest import make_batch, make_tiny_config
from . import small_training
from .small_training import CONTEXT

AT = 2  # the iteration, counted from 0, at which something happens
# The faults that nothing but silence tells of, and what is silence then, in seconds.
SILENT = ("freezes", "loads slowly", "hangs between steps", "hangs computing")
LIMIT = 12.0
PATIENCE = 600.0  # seconds; less than without our limit, more than the busiest machine needs


class At(HookBase):
    """Does something before an iteration."""

    def __init__(self, action):
        self.action = action

    def before_step(self):
        if self.trainer.iter == AT:
            self.action()


class After(At):
    def before_step(self):
        pass

    def after_step(self):
        if self.trainer.iter == AT:
            self.action()


def break_data(action):
    """Do something while the data of every later iteration are read."""
    original = MaskDatasetMapper.map_record
    calls = []

    def map_record(self, record):
        calls.append(record)
        if len(calls) > AT:
            action()
        return original(self, record)

    MaskDatasetMapper.map_record = map_record


def fail():
    raise ValueError("the mapper has a bug")


def send(number):
    os.kill(os.getpid(), number)


def nan_loss(trainer_hook):
    with torch.no_grad():
        trainer_hook.trainer.model.module.mask_decoder.proj.bias.fill_(float("nan"))


def break_computation(action):
    """Do something in the middle of every later step, while the others compute."""
    original = PixelCLIP.forward
    calls = []

    def forward(self, batch):
        calls.append(batch)
        if len(calls) > AT:
            action()
        return original(self, batch)

    PixelCLIP.forward = forward


# What the afflicted rank does.
FAULTS = {
    "dies": lambda cfg: [At(partial(send, signal.SIGKILL))],
    "fails": lambda cfg: break_data(fail) or [],
    "freezes": lambda cfg: [At(partial(send, signal.SIGSTOP))],
    "loads slowly": lambda cfg: break_data(partial(time.sleep, 300)) or [],
    "dies computing": lambda cfg: break_computation(partial(send, signal.SIGKILL)) or [],
    "hangs computing": lambda cfg: break_computation(partial(time.sleep, 300)) or [],
    "hangs between steps": lambda cfg: [After(partial(time.sleep, 300))],
    "has no data": lambda cfg: os.environ.update(SAM_DATASETS=os.environ["EMPTY"]) or [],
    "has other data": lambda cfg: os.environ.update(SAM_DATASETS=os.environ["OTHER"]) or [],
    "has another batch size": lambda cfg: setattr(cfg.SOLVER, "IMS_PER_BATCH", 4) or [],
    "is never afflicted": lambda cfg: [],
}


def run_rank(rank, port, folder, fault, afflicted):
    small_training.speak_to(folder / f"rank_{rank}.txt")
    limit = LIMIT if fault in SILENT else PATIENCE
    small_training.join_group(rank, 2, port, limit)
    overrides = ("SOLVER.MAX_ITER", 6, "SOLVER.STEP_TIME_LIMIT", limit)
    cfg = small_training.make_config(folder, folder / "output", overrides)
    os.environ["EMPTY"], os.environ["OTHER"] = str(folder / "empty"), str(folder / "other")
    hooks = FAULTS[fault](cfg) if rank == afflicted else []
    small_training.train(cfg, hooks)


def run_two(folder, fault, afflicted=1):
    """What each rank printed, and how it ended; frozen ranks are killed after the others' end."""
    small_training.prepare(folder)
    small_training.write_images(folder / "other", 5)
    (folder / "empty").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [
        CONTEXT.Process(target=run_rank, args=(rank, port, folder, fault, afflicted))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    processes[1 - afflicted].join(PATIENCE)
    codes = []
    for rank, process in enumerate(processes):
        process.join(5 if rank == afflicted and fault in SILENT else PATIENCE)
        if process.is_alive():
            assert rank == afflicted, f"hangs: {(folder / f'rank_{rank}.txt').read_text()}"
            process.kill()
            process.join()
        codes.append(process.exitcode)
    return [(folder / f"rank_{rank}.txt").read_text() for rank in range(2)], codes


WAITED = r"RuntimeError: Rank \d waited for the others to load iteration [34], "
RANK_1_IS_MISSING = WAITED + ".* Ranks? 1 failed to pass monitoredBarrier"
RANK_0_IS_MISSING = WAITED + ".* waiting for send/recv from rank 0"
# Inside a collective it is not known who is to blame.
CONNECTION_LOST = r"RuntimeError: .*(Connection closed by peer|Connection reset by peer)"
TIMED_OUT = r"RuntimeError: .*Timed out waiting 12000ms"


@pytest.mark.parametrize(
    ("fault", "afflicted", "expected"),
    [
        pytest.param("dies", 1, WAITED, marks=pytest.mark.slow),
        ("fails", 1, WAITED),
        ("has no data", 1, r"rank 1 failed with FileNotFoundError: .* no image with masks"),
        ("has another batch size", 1, r"SOLVER\.IMS_PER_BATCH: rank 0: 2, rank 1: 4"),
        pytest.param("has other data", 1, r"rank 0: 6, rank 1: 5", marks=pytest.mark.slow),
        pytest.param("dies", 0, WAITED, marks=pytest.mark.slow),
        pytest.param("fails", 0, WAITED, marks=pytest.mark.slow),
        pytest.param("freezes", 1, RANK_1_IS_MISSING, marks=pytest.mark.slow),
        pytest.param("freezes", 0, RANK_0_IS_MISSING, marks=pytest.mark.slow),
        pytest.param("loads slowly", 1, RANK_1_IS_MISSING, marks=pytest.mark.slow),
        pytest.param("hangs between steps", 0, RANK_0_IS_MISSING, marks=pytest.mark.slow),
        pytest.param("dies computing", 1, CONNECTION_LOST, marks=pytest.mark.slow),
        pytest.param("hangs computing", 1, TIMED_OUT, marks=pytest.mark.slow),
    ],
)
def test_the_other_process_ends_with_an_error_in_time(tmp_path, fault, afflicted, expected):
    output, codes = run_two(tmp_path, fault, afflicted)
    text = output[1 - afflicted]
    assert codes[1 - afflicted] == 1, text
    last = text.strip().splitlines()[-1]
    assert re.search(expected, last), text
    if fault == "fails":
        assert "ValueError: the mapper has a bug" in output[afflicted]


def test_two_healthy_processes_finish(tmp_path):
    output, codes = run_two(tmp_path, "is never afflicted")
    assert codes == [0, 0], output
    assert (tmp_path / "output" / "model_final.pth").exists()
    assert len((tmp_path / "output" / "iterations.jsonl").read_text().splitlines()) == 6


def bad_loss_rank(rank, port, folder):
    small_training.speak_to(folder / f"rank_{rank}.txt")
    small_training.join_group(rank, 2, port)
    cfg = small_training.make_config(folder, folder / "output")
    hook = At(lambda: nan_loss(hook) if rank == 1 else None)
    small_training.train(cfg, [hook])


def run_group(target, *arguments):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [CONTEXT.Process(target=target, args=(r, port, *arguments)) for r in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
    return [process.exitcode for process in processes]


def test_a_bad_loss_of_one_process_stops_all_with_its_rank_and_is_saved(tmp_path):
    small_training.prepare(tmp_path)
    assert run_group(bad_loss_rank, tmp_path) == [1, 1]
    for rank in range(2):
        text = (tmp_path / f"rank_{rank}.txt").read_text()
        assert "Iteration 3: the loss is {'loss_masks': nan} in rank 1." in text
    names = [f"iteration_0000003_rank_{rank}.pth" for rank in range(2)]
    kept = tmp_path / "output" / "non_finite"
    assert sorted(os.listdir(kept)) == names
    steps = [torch.load(kept / name, weights_only=True) for name in names]
    assert "model" in steps[0] and "model" not in steps[1]
    assert steps[0]["batch"][0]["image_id"] != steps[1]["batch"][0]["image_id"]


def interrupted_rank(rank, port, folder, name, interrupts):
    small_training.speak_to(folder / f"rank_{rank}.txt")
    small_training.join_group(rank, 2, port)
    cfg = small_training.make_config(folder, folder / name, ("SOLVER.CHECKPOINT_PERIOD", 100))
    hooks = [At(partial(send, signal.SIGINT))] if interrupts and rank == 1 else []
    try:
        small_training.train(cfg, hooks)
    except TrainingInterrupted:
        sys.exit(130)


def test_a_signal_to_one_process_stops_all_after_the_same_iteration(tmp_path):
    small_training.prepare(tmp_path)
    assert run_group(interrupted_rank, tmp_path, "whole", False) == [0, 0]
    assert run_group(interrupted_rank, tmp_path, "stopped", True) == [130, 130]
    stopped = tmp_path / "stopped"
    assert [path.name for path in stopped.glob("*.pth")] == ["model_0000002.pth"]
    assert run_group(interrupted_rank, tmp_path, "stopped", False) == [0, 0]
    logs = [(folder / "iterations.jsonl").read_text() for folder in (tmp_path / "whole", stopped)]
    assert logs[1] == logs[0] and logs[0].count("\n") == 4


def unequal_batches_rank(rank, port, folder):
    small_training.join_group(rank, 2, port)
    batch = make_batch(4)
    result = loss_and_gradients(folder, batch[:1] if rank == 0 else batch[1:])
    torch.save(result, folder / f"{rank}.pt")


def loss_and_gradients(folder, batch):
    torch.manual_seed(0)
    model = PixelCLIP(make_tiny_config(str(folder / "tiny_vit.json"))).train()
    wrapped = model
    if torch.distributed.is_initialized():
        wrapped = torch.nn.parallel.DistributedDataParallel(model)
    loss = wrapped(batch)["loss_masks"]
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_batches_of_different_sizes_equal_their_sum_in_one_process(tmp_path):
    small_training.prepare(tmp_path)
    assert run_group(unequal_batches_rank, tmp_path) == [0, 0]
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    loss, gradients = loss_and_gradients(tmp_path, make_batch(4))
    torch.testing.assert_close(sum(r[0] for r in results) / 2, loss, atol=1e-6, rtol=1e-5)
    for name, gradient in gradients.items():
        atol = 1e-5 * gradient.abs().max().item()
        torch.testing.assert_close(results[0][1][name], gradient, atol=atol, rtol=1e-3)


def test_alone_nothing_is_exchanged():
    assert run_on_all_ranks(lambda: 5) == 5
    check_same("value", object())
    with pytest.raises(ValueError, match="bug"):
        run_on_all_ranks(fail)


@pytest.mark.slow
def test_torchrun_restarts_a_killed_process_and_resumes(tmp_path):
    small_training.prepare(tmp_path)
    root = Path(__file__).resolve().parents[2]
    overrides = [
        *("MODEL.CLIP.ARCH", str(tmp_path / "tiny_vit.json"), "MODEL.CLIP.PRETRAINED", ""),
        *("MODEL.CLIP.RESOLUTION", "(64, 64)", "MODEL.PIXELCLIP.MASK_RESOLUTION", "(32, 32)"),
        *("MODEL.PIXELCLIP.NUM_CLUSTERS", "8", "DATASETS.TEST", "()"),
        *small_training.SMALL_TRAINING,
        *("SOLVER.MAX_ITER", "30", "SOLVER.CHECKPOINT_PERIOD", "3"),
    ]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node=2", "--max-restarts=1"]
    command = [str(root / "tools" / "train_net.py"), "--config-file"]
    command += [str(root / "configs" / "pixelclip_vitb16.yaml"), *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    environment["SAM_DATASETS"] = str(tmp_path / "images")

    def start(name):
        output = ["OUTPUT_DIR", str(tmp_path / name)]
        log = open(tmp_path / f"{name}.txt", "wb")  # noqa: SIM115
        return subprocess.Popen(
            [*torchrun, *command, *output], env=environment, stdout=log, stderr=log
        )

    whole = start("whole")
    assert whole.wait(900) == 0, (tmp_path / "whole.txt").read_text()
    killed = start("killed")
    while not (tmp_path / "killed" / "last_checkpoint").exists():
        assert killed.poll() is None, (tmp_path / "killed.txt").read_text()
        time.sleep(0.02)
    children = Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    assert killed.wait(900) == 0, (tmp_path / "killed.txt").read_text()
    logs = [(tmp_path / n / "iterations.jsonl").read_text() for n in ("whole", "killed")]
    assert logs[1] == logs[0] and logs[0].count("\n") == 30
    text = (tmp_path / "killed" / "log.txt").read_text()
    assert text.count("Starting training from iteration 0") == 1
    assert text.count("Starting training from iteration") == 2
