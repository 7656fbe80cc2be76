"""Several processes that share a batch do what one process does with the whole of it."""

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch.nn.parallel import DistributedDataParallel

from pixelclip import PixelCLIP
from pixelclip.engine.launch import create_local_process_group
from pixelclip.engine.solver import build_optimizer
from pixelclip.engine.training_step import TrainingStep
from pixelclip.utils.distributed import all_gather_uneven

from ..conftest import RecordingAssignment, make_batch, make_tiny_config, remove_stochastic_depth
from ..reliability.small_training import CONTEXT

# Masks of the four images of a batch; the first two belong to the first process.
MASK_COUNTS = {"equal": (5, 5, 5, 5), "unequal": (9, 3, 1, 4), "one has none": (6, 5, 0, 0)}
STEPS = 3
# As the processes have, so that sums are added in the same order.
pytestmark = pytest.mark.usefixtures("one_thread")
ABLATIONS = sorted((Path(__file__).resolve().parents[2] / "configs" / "ablations").glob("[a-z]*"))
# Over a configuration's own sizes.
TINY = [
    *("MODEL.CLIP.PRETRAINED", "", "MODEL.CLIP.RESOLUTION", (64, 64)),
    *("MODEL.PIXELCLIP.MASK_RESOLUTION", (32, 32), "DATASETS.TEST", (), "MODEL.DEVICE", "cpu"),
]


def train(architecture, counts, rank, processes):
    """Three steps on this process's share; losses, assignments and weights afterwards."""
    torch.manual_seed(0)
    cfg = make_tiny_config(architecture)
    cfg.SOLVER.BASE_LR = 1e-3
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.01
    model = PixelCLIP(cfg).train()
    remove_stochastic_depth(model)  # it would differ between the processes
    trained = DistributedDataParallel(model) if processes > 1 else model
    optimizer = build_optimizer(cfg, model)
    losses, assignment = [], RecordingAssignment(model)
    for step in range(STEPS):
        batch = [make_batch(1, count, seed=10 * step + i)[0] for i, count in enumerate(counts)]
        share = len(batch) // processes
        loss = trained(batch[rank * share : (rank + 1) * share])["loss_masks"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(sum(comm.all_gather(loss.detach())) / processes)
    # Every process knows the clusters of all masks.
    everyones = comm.all_gather([a.tolist() for a in assignment.recorded])
    assert all(one == everyones[0] for one in everyones)
    return torch.stack(losses), everyones[0], model.state_dict()


def _work(rank, processes, port, architectures, path):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", world_size=processes, rank=rank
    )
    create_local_process_group(processes)
    results = {
        (architecture, name): train(architecture, counts, rank, processes)
        for architecture in architectures
        for name, counts in MASK_COUNTS.items()
    }
    results["exchange"] = exchange_rows(rank)
    if processes == 2:
        results["parts"] = train_in_parts(architectures[0], rank, processes)
    else:
        train_ablations(architectures[0], rank)
    if rank == 0:
        torch.save(results, path)
    torch.distributed.destroy_process_group()


def exchange_rows(rank):
    """What this process receives when each has more rows, and the second none at all."""
    received = []
    for number in (3 * rank, 40 * rank, 150 * rank, 5):
        rows = torch.full((0 if rank == 1 else number, 2), float(rank))
        shared = all_gather_uneven(rows, torch.tensor(2**40 + rank))
        assert torch.equal(shared.rows[shared.own], rows)
        received.append((shared.rows, shared.total))
    return received


def train_ablations(architecture, rank):
    """Two steps of each variant: a parameter without gradient would be an error in the second."""
    for path in ABLATIONS:
        cfg = make_tiny_config(architecture)
        cfg.merge_from_file(str(path))
        cfg.merge_from_list(TINY)
        cfg.MODEL.CLIP.ARCH = architecture
        model = PixelCLIP(cfg).train()
        trained = DistributedDataParallel(model, gradient_as_bucket_view=True)
        for step in range(2):
            trained(make_batch(1, 3 * rank, seed=step))["loss_masks"].backward()


def train_in_parts(architecture, rank, processes):
    """Loss and prompts after a step whose batch goes through the model in two parts."""
    torch.manual_seed(0)
    cfg = make_tiny_config(architecture)
    cfg.MODEL.PIXELCLIP.ASSIGNMENT = "argmax"
    model = PixelCLIP(cfg)
    batch = [make_batch(1, count, seed=i)[0] for i, count in enumerate((9, 3, 0, 4))]
    share = len(batch) // processes
    trainer = TrainingStep(
        DistributedDataParallel(model, gradient_as_bucket_view=True) if processes > 1 else model,
        [batch[rank * share : (rank + 1) * share]],
        build_optimizer(cfg, model),
        accumulation_steps=share if processes > 1 else 1,
    )
    trainer.iter = 0
    with EventStorage(0) as storage:
        trainer.run_step()
        loss = storage.latest().get("total_loss")
    parameters = model.class_prompts.tokens, model.mask_decoder.proj.weight
    return loss, *(parameter.grad.clone() for parameter in parameters)


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def results_of_many(request, tiny_vit_json, tiny_convnext_json, tmp_path_factory):
    path = tmp_path_factory.mktemp("processes") / "results.pt"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Four processes with one image each: the ViT is enough.
    architectures = (tiny_vit_json, tiny_convnext_json)[: 4 // request.param]
    arguments = (request.param, port, architectures, path)
    torch.multiprocessing.start_processes(
        _work, arguments, nprocs=request.param, start_method=CONTEXT.get_start_method()
    )
    return request.param, torch.load(path)


@pytest.mark.parametrize("kind", ["vit", "convnext"])
@pytest.mark.parametrize("case", MASK_COUNTS)
def test_many_processes_equal_one(results_of_many, request, kind, case):
    architecture = request.getfixturevalue(f"tiny_{kind}_json")
    processes, results = results_of_many
    if (architecture, case) not in results:
        pytest.skip(f"the {kind} is not trained by {processes} processes")
    losses, assignments, weights = train(architecture, MASK_COUNTS[case], 0, 1)
    losses_of_many, assignments_of_many, weights_of_many = results[architecture, case]
    assert assignments_of_many == assignments
    torch.testing.assert_close(losses_of_many, losses, atol=1e-6, rtol=1e-5)
    for name, value in weights.items():
        # A step moves a weight by up to 1e-2 (prompts) and 1e-5 (image encoder).
        atol = 1e-7 if name.startswith("image_encoder") else 3e-5
        torch.testing.assert_close(weights_of_many[name], value, atol=atol, rtol=1e-5)


def test_every_process_gets_all_rows_in_order(results_of_many):
    processes, results = results_of_many
    for number, (rows, count) in zip((3, 40, 150, None), results["exchange"], strict=True):
        numbers = [5 if number is None else number * rank for rank in range(processes)]
        numbers[1] = 0
        expected = torch.arange(float(processes)).repeat_interleave(torch.tensor(numbers))
        assert torch.equal(rows, expected[:, None].expand(-1, 2))
        assert count == processes * 2**40 + sum(range(processes))


def test_parts_on_two_processes_equal_one_batch_on_one(results_of_many, tiny_vit_json):
    processes, results = results_of_many
    if processes != 2:
        pytest.skip("two images a process are two parts")
    loss, *gradients = results["parts"]
    expected_loss, *expected = train_in_parts(tiny_vit_json, 0, 1)
    assert loss[0] == pytest.approx(expected_loss[0], rel=1e-5)
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 * other.abs().max().item(), rtol=1e-3)


def test_a_single_process_needs_no_group():
    rows, count = torch.rand(3, 2), torch.tensor(5)
    shared = all_gather_uneven(rows, count)
    assert shared.rows is rows
    assert torch.equal(shared.rows[shared.own], rows)
    assert shared.total is count
