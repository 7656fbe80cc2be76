"""Start a main function in one process per GPU, under torchrun, or in this process on the CPU."""

import argparse
import contextlib
import os
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed
from detectron2.engine import launch as launch_on_gpus
from detectron2.utils import comm
from torch.distributed.elastic.multiprocessing.errors import record

from pixelclip.engine.interruption import signals_for_children
from pixelclip.engine.setup import load_config_of
from pixelclip.utils.distributed import limit_gloo_group

Main = Callable[[argparse.Namespace], object]


def launch(main: Main, args: argparse.Namespace) -> None:
    """Run ``main(args)`` in as many processes as asked for.

    Under torchrun, the ranks are torchrun's (NCCL where ``MODEL.DEVICE`` is a GPU, else gloo).
    Otherwise Detectron2's launcher starts ``args.num_gpus`` processes on each machine. On the CPU,
    ``main`` runs once in this process. Processes wait for each other for up to
    ``SOLVER.STEP_TIME_LIMIT`` seconds; the first that fails ends all, and the launcher names it.
    Where torchrun starts a training again, ``args.resume`` is set.

    Args:
        main: what the processes run.
        args: its argument; also ``num_gpus``, ``num_machines``, ``machine_rank``, ``dist_url`` and
            ``eval_only``, and what :func:`load_config_of` takes.

    Raises:
        KeyboardInterrupt: the processes were interrupted.
        ValueError: this machine has fewer GPUs than ``args.num_gpus``, or none is used and there
            are several machines; or as :func:`load_config_of` raises.
    """
    cfg = load_config_of(args)
    on_gpu = cfg.MODEL.DEVICE.startswith("cuda")
    limit = timedelta(seconds=cfg.SOLVER.STEP_TIME_LIMIT)
    available = torch.cuda.device_count()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        record(_run_under_torchrun)(main, args, on_gpu, limit)
    elif not on_gpu and args.num_machines > 1:
        raise ValueError(
            f"--num-machines is {args.num_machines}, and MODEL.DEVICE is {cfg.MODEL.DEVICE} here: "
            "each machine would train on its own. Start the processes with torchrun instead."
        )
    elif not on_gpu:
        main(args)
    elif args.num_gpus > available:
        raise ValueError(f"--num-gpus is {args.num_gpus}; this machine has {available}.")
    else:
        _launch_on_gpus(main, args, limit)


def _launch_on_gpus(main: Main, args: argparse.Namespace, limit: timedelta) -> None:
    starts_children = args.num_gpus * args.num_machines > 1
    with signals_for_children() if starts_children else contextlib.nullcontext():
        launch_on_gpus(
            _run_on_gpu,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(main, args, limit),
            timeout=limit,
        )


def _run_on_gpu(main: Main, args: argparse.Namespace, limit: timedelta) -> None:
    if comm.get_world_size() > 1:
        limit_gloo_group(limit)
    main(args)


def _run_under_torchrun(
    main: Main, args: argparse.Namespace, on_gpu: bool, limit: timedelta
) -> None:
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    store, rank, world_size = next(torch.distributed.rendezvous("env://"))
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        # torchrun's agent keeps the store over a restart, with the addresses of the ended
        # processes. (The agents of several machines count restarts each for itself.)
        store = torch.distributed.PrefixStore(f"restart_{restarts}", store)
    torch.distributed.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=limit,
    )
    limit_gloo_group(limit)
    create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    if any(comm.all_gather(restarts)) and not args.eval_only:
        args.resume = True
    main(args)
    # After an error it might wait for the others; the process ends without it.
    torch.distributed.destroy_process_group()


def create_local_process_group(processes_per_machine: int) -> None:
    """Tell Detectron2 which processes share a machine; all machines have the same number."""
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(processes_per_machine)
        return
    # Detectron2 0.5 does this inside its launcher only.
    for first in range(0, comm.get_world_size(), processes_per_machine):
        ranks = list(range(first, first + processes_per_machine))
        group = torch.distributed.new_group(ranks)
        if comm.get_rank() in ranks:
            comm._LOCAL_PROCESS_GROUP = group
