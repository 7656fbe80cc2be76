"""Two processes that share a batch do what one process does with the whole of it."""

import socket

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from detectron2.utils import comm
from torch.nn.parallel import DistributedDataParallel

from pixelclip import PixelCLIP
from pixelclip.distributed import sum_over_processes
from pixelclip.engine.launch import create_local_process_group
from pixelclip.engine.solver import build_optimizer

from .conftest import make_batch, make_tiny_config

# Masks of the four images of a batch; the first two belong to the first process.
MASK_COUNTS = {"equal": (5, 5, 5, 5), "unequal": (9, 3, 1, 4), "one has none": (6, 5, 0, 0)}
STEPS = 3


def train(architecture, counts, rank, processes):
    """Three steps on this process's share; losses, assignments and weights afterwards."""
    torch.manual_seed(0)
    cfg = make_tiny_config(architecture)
    cfg.SOLVER.BASE_LR = 1e-3
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.01
    model = PixelCLIP(cfg).train()
    model.image_encoder.eval()  # stochastic depth would differ between the processes
    trained = DistributedDataParallel(model) if processes > 1 else model
    optimizer = build_optimizer(cfg, model)
    assignments, losses = [], []
    assign = model.assign_masks
    model.assign_masks = lambda *args: assignments.append(assign(*args)) or assignments[-1]
    for step in range(STEPS):
        batch = [make_batch(1, count, seed=10 * step + i)[0] for i, count in enumerate(counts)]
        share = len(batch) // processes
        loss = trained(batch[rank * share : (rank + 1) * share])["loss_masks"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(sum_over_processes(loss.detach()) / processes)
    gathered = zip(*comm.all_gather([a.tolist() for a in assignments]), strict=True)
    return torch.stack(losses), [sum(parts, []) for parts in gathered], model.state_dict()


def _work(rank, port, architectures, path):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", world_size=2, rank=rank
    )
    create_local_process_group(2)
    results = {
        (architecture, name): train(architecture, counts, rank, 2)
        for architecture in architectures
        for name, counts in MASK_COUNTS.items()
    }
    if rank == 0:
        torch.save(results, path)
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results_of_two(tiny_vit_json, tiny_convnext_json, tmp_path_factory):
    path = tmp_path_factory.mktemp("two") / "results.pt"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    architectures = (tiny_vit_json, tiny_convnext_json)
    torch.multiprocessing.spawn(_work, (port, architectures, path), nprocs=2)
    return torch.load(path)


@pytest.mark.parametrize("kind", ["vit", "convnext"])
@pytest.mark.parametrize("case", MASK_COUNTS)
def test_two_processes_equal_one(results_of_two, request, kind, case):
    architecture = request.getfixturevalue(f"tiny_{kind}_json")
    losses, assignments, weights = train(architecture, MASK_COUNTS[case], 0, 1)
    losses_of_two, assignments_of_two, weights_of_two = results_of_two[architecture, case]
    assert assignments_of_two == assignments
    torch.testing.assert_close(losses_of_two, losses, atol=1e-6, rtol=1e-5)
    for name, value in weights.items():
        # A step moves a weight by up to 1e-2 (prompts) and 1e-5 (image encoder).
        atol = 1e-7 if name.startswith("image_encoder") else 1e-5
        torch.testing.assert_close(weights_of_two[name], value, atol=atol, rtol=1e-5)


def test_a_single_process_needs_no_group():
    tensor = torch.arange(3.0)
    assert sum_over_processes(tensor) is tensor
