"""Start a main function in one process per GPU, under torchrun, or in this process on the CPU."""

import argparse
import os
from collections.abc import Callable

import torch
import torch.distributed
from detectron2.engine import launch as launch_on_gpus
from detectron2.utils import comm

from pixelclip.distributed import COLLECTIVE_TIMEOUT


def launch(main: Callable[[argparse.Namespace], object], args: argparse.Namespace) -> None:
    """Run ``main(args)`` in as many processes as asked for.

    Under torchrun, the ranks are torchrun's (NCCL on GPUs, gloo on the CPU). Otherwise Detectron2's
    launcher starts ``args.num_gpus`` processes on each of ``args.num_machines`` machines. Without
    a GPU, ``main`` runs once in this process, on the CPU.

    Where torchrun starts the processes again after a failure, ``args.resume`` is set: the training
    goes on from its last checkpoint.

    Raises:
        ValueError: this machine has fewer GPUs than ``args.num_gpus``, or none and there are
            several machines.
    """
    available = torch.cuda.device_count()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _run_under_torchrun(main, args)
    elif not available and args.num_machines > 1:
        raise ValueError(
            f"--num-machines is {args.num_machines}, and this machine has no GPU: each machine "
            "would train by itself. Start the processes with torchrun instead."
        )
    elif not available:
        print("No GPU was found: running in one process on the CPU.", flush=True)
        main(args)
    elif args.num_gpus > available:
        raise ValueError(f"--num-gpus is {args.num_gpus}; this machine has {available}.")
    else:
        launch_on_gpus(
            main,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
            timeout=COLLECTIVE_TIMEOUT,
        )


def _run_under_torchrun(
    main: Callable[[argparse.Namespace], object], args: argparse.Namespace
) -> None:
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "nccl"
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    store, rank, world_size = next(torch.distributed.rendezvous("env://"))
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        # torchrun's agent keeps the store over a restart, with the addresses of the ended
        # processes. (The agents of several machines count restarts each for itself.)
        store = torch.distributed.PrefixStore(f"restart_{restarts}", store)
    torch.distributed.init_process_group(
        backend, store=store, rank=rank, world_size=world_size, timeout=COLLECTIVE_TIMEOUT
    )
    try:
        create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
        if any(comm.all_gather(restarts)):
            args.resume = True
        main(args)
    finally:
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
