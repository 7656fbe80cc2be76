"""Do several processes train as one does, end when one is killed, and how much faster are they?

With several GPUs each has one, and NCCL connects them; otherwise two processes share the CPU.
"""

import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from pixelclip.analysis.checks import CONTEXT, Line, Verdict, attempt, describe_error, skipped
from pixelclip.analysis.gpu_correctness import (
    build_small,
    load_small,
    make_batch,
    read_gradients,
    relative_norm,
    remove_stochastic_depth,
    set_tf32,
    worst,
)
from pixelclip.analysis.profiling import synchronize
from pixelclip.analysis.speed import Configuration
from pixelclip.analysis.speed_workloads import train_workload
from pixelclip.engine.launch import create_local_process_group
from pixelclip.engine.setup import allow_tf32
from pixelclip.engine.solver import build_optimizer
from pixelclip.engine.training_step import TrainingStep
from pixelclip.utils.atomic_write import atomic_writer
from pixelclip.utils.distributed import limit_gloo_group

# Relative differences of the losses and of a gradient that are accepted between one and several.
_LOSS, _GRADIENT = 1e-4, 1e-2
# Seconds that processes wait for each other, and after which they are ended.
_LIMIT, _PATIENCE = 20.0, 90.0
_STEPS = 3
# Steps that are measured, and those before.
_TIMED, _WARM_UP = 5, 3

# (configuration, rank, number of processes, folder) -> what it found
Work = Callable[[CfgNode, int, int, Path], Any]


def mask_counts(case: str, processes: int) -> list[int]:
    """Masks of the images of a batch, two for each process; the first two are the first one's."""
    counts = {
        "equal": [5] * (2 * processes),
        "uneven": [1 + (7 * index) % 11 for index in range(2 * processes)],
        "one without masks": [6] * (2 * processes - 2) + [0, 0],
    }
    return counts[case]


def check_processes(
    configuration: Configuration, device: str, processes: int, folder: Path
) -> Iterator[Line]:
    """Compare processes with a single one, and kill one."""
    cfg = load_small(configuration, device)
    for case in ("equal", "uneven", "one without masks"):
        yield attempt(f"masks: {case}", _compare_processes, cfg, processes, folder, case)
    yield attempt("a killed process", _compare_kill, cfg, processes, folder)


def check_scaling(
    configuration: Configuration, gpus: int, images: Path, folder: Path
) -> Iterator[Line]:
    """Images per second of one GPU and of all, with the same batch."""
    what = f"{configuration}: {gpus} GPUs"
    if gpus < 2:
        yield skipped("efficiency of several GPUs", "needs 2 GPUs")
    elif configuration.load().SOLVER.IMS_PER_BATCH % gpus:
        yield skipped(what, "the batch is not a multiple of the number of GPUs")
    else:
        yield attempt(what, _compare_speeds, configuration.load(), gpus, images, folder)


def _compare_processes(cfg: CfgNode, processes: int, folder: Path, case: str) -> Verdict:
    counts = mask_counts(case, processes)

    work = partial(train, counts)
    (alone,) = run_processes(work, cfg, 1, folder)
    together = run_processes(work, cfg, processes, folder)
    losses = torch.stack([torch.tensor(result["losses"]) for result in together]).mean(dim=0)
    expected = torch.tensor(alone["losses"])
    loss = ((losses - expected).abs() / expected.abs()).max().item()
    gradient = worst(
        relative_norm(alone["gradients"][part], found)
        for result in together
        for part, found in result["gradients"].items()
    )
    text = f"{processes} processes: losses within {loss:.0e}, gradients {gradient:.0e} of one's"
    return Verdict(loss <= _LOSS and gradient <= _GRADIENT, text, {"processes": processes})


def train(
    counts: Sequence[int], cfg: CfgNode, rank: int, processes: int, _: Path
) -> dict[str, Any]:
    """Losses of some steps with a process's share of each batch, and the first step's gradients."""
    model = build_small(cfg)
    size = len(counts) // processes
    share = slice(rank * size, (rank + 1) * size)
    batches = [make_batch(cfg, counts, seed)[share] for seed in range(_STEPS)]
    step = TrainingStep(_wrap(model), batches, build_optimizer(cfg, model), time_limit=_LIMIT)
    model.train()
    remove_stochastic_depth(model)
    losses: list[float] = []
    gradients: dict[str, Tensor] = {}
    with EventStorage(0), set_tf32(False):
        for step.iter, batch in enumerate(batches):
            found = step.compute_gradients(batch)
            gradients = gradients or read_gradients(model)
            losses.append(found["loss_masks"].item())
            step.optimizer.step()
    return {"losses": losses, "gradients": gradients}


def _wrap(model: Any) -> Any:
    if comm.get_world_size() == 1:
        return model
    device_ids = [model.device.index] if model.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=device_ids, gradient_as_bucket_view=True)


def _compare_kill(cfg: CfgNode, processes: int, folder: Path) -> Verdict:
    last = processes - 1
    start = time.monotonic()
    results = run_processes(_train_until_killed, cfg, processes, folder, killed=last)
    seconds = time.monotonic() - start
    errors = [result for rank, result in enumerate(results) if rank != last]
    named = [isinstance(error, str) and "waited for the others" in error for error in errors]
    text = f"the others ended within {seconds:.0f} s, {sum(named)} of {last} with a reason"
    return Verdict(all(named), text, {"errors": errors})


def _train_until_killed(cfg: CfgNode, rank: int, processes: int, _: Path) -> str:
    model = build_small(cfg)
    batches = [make_batch(cfg, [3], rank) for _ in range(_STEPS)]
    step = TrainingStep(_wrap(model), batches, build_optimizer(cfg, model), time_limit=_LIMIT)
    with EventStorage(0):
        for step.iter in range(_STEPS):
            if step.iter == 1 and rank == processes - 1:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                step.run_step()
            except RuntimeError as error:
                return describe_error(error)
    return "not noticed"


def _compare_speeds(cfg: CfgNode, gpus: int, images: Path, folder: Path) -> Verdict:
    batch_size = cfg.SOLVER.IMS_PER_BATCH
    work = partial(time_steps, images)
    seconds = [max(run_processes(work, cfg, number, folder)) for number in (1, gpus)]
    efficiency = seconds[0] / seconds[1] / gpus
    rates = [batch_size / one for one in seconds]
    text = (
        f"batch {batch_size}: {rates[0]:.0f} images per second on one, {rates[1]:.0f} on all, "
        f"efficiency {efficiency:.0%}"
    )
    return Verdict(True, text, {"seconds": seconds, "efficiency": efficiency})


def time_steps(images: Path, cfg: CfgNode, rank: int, processes: int, folder: Path) -> float:
    """Median seconds of a training step."""
    allow_tf32()
    workload = train_workload(cfg, images, folder)
    seconds = []
    for _ in range(_WARM_UP + _TIMED):
        synchronize(workload.device)
        start = time.perf_counter()
        workload.step()
        synchronize(workload.device)
        seconds.append(time.perf_counter() - start)
    return median(seconds[_WARM_UP:])


def run_processes(
    work: Work, cfg: CfgNode, number: int, folder: Path, killed: int | None = None
) -> list[Any]:
    """What the processes of a group return.

    Args:
        work: what each does.
        cfg: its ``MODEL.DEVICE`` decides between NCCL, with a GPU for each process, and gloo.
        number: of processes.
        folder: for their results.
        killed: the rank of the process that is expected to return nothing, for which None stands.

    Raises:
        RuntimeError: another one raised an error, crashed, or was not done in time.
    """
    port = _find_free_port()
    arguments = [(work, cfg, rank, number, port, folder, killed) for rank in range(number)]
    processes = [CONTEXT.Process(target=_run_rank, args=one) for one in arguments]
    for process in processes:
        process.start()
    deadline = time.monotonic() + _PATIENCE
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    results = []
    for rank, process in enumerate(processes):
        process.kill()
        process.join()
        path = _result_path(folder, port, rank)
        found = {"error": "no result in time, or a crash"}
        if path.exists():
            found = torch.load(path, weights_only=True)
        if "error" in found and rank != killed:
            raise RuntimeError(f"process {rank} of {number}: {found['error']}")
        results.append(found.get("result"))
    return results


def _run_rank(
    work: Work,
    cfg: CfgNode,
    rank: int,
    number: int,
    port: int,
    folder: Path,
    killed: int | None,
) -> None:
    """A process of a group: store what it returns, or its error."""
    try:
        _join_group(cfg, rank, number, port)
        own_folder = folder / f"{port}_{rank}"
        own_folder.mkdir()
        found = {"result": work(cfg, rank, number, own_folder)}
    except Exception as error:
        traceback.print_exc()
        found = {"error": describe_error(error)}
    with atomic_writer(_result_path(folder, port, rank)) as file:
        torch.save(found, file)
    if killed is None and "result" in found:
        torch.distributed.destroy_process_group()  # it waits for the others


def _join_group(cfg: CfgNode, rank: int, number: int, port: int) -> None:
    on_gpu = cfg.MODEL.DEVICE.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(1)
    limit = timedelta(seconds=_LIMIT)
    torch.distributed.init_process_group(
        "nccl" if on_gpu else "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=number,
        timeout=limit,
    )
    limit_gloo_group(limit)
    create_local_process_group(number)


def _result_path(folder: Path, port: int, rank: int) -> Path:
    return folder / f"{port}_{rank}.pt"


def _find_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
