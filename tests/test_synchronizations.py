"""How often the host waits for a GPU: see ``synchronizations.py``."""

import copy

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from PIL import Image

from pixelclip import PixelCLIP
from pixelclip.data.masks import pack_sample
from pixelclip.engine.solver import build_optimizer
from pixelclip.engine.training_step import TrainingStep
from pixelclip.evaluation.evaluators import LabelMapEvaluator, LabelMapModel
from pixelclip.utils import distributed

from .conftest import make_batch, make_tiny_config
from .synchronizations import GPU, GPUTensor, Synchronizations, move_to_gpu, pin_batch

CLIPPING = [
    *("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model"),
    *("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.01),
]

WAITING = {
    "item": lambda x: x.sum().item(),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "if": lambda x: bool(x.any()),
    "torch.equal": lambda x: torch.equal(x, x),
    "nonzero": lambda x: x.nonzero(),
    "reading with booleans": lambda x: x[x > 1],
    "writing with booleans": lambda x: x.__setitem__(x > 1, 0.0),
    "bincount": lambda x: torch.bincount(x.long()),
    "unique": lambda x: x.unique(),
    "repeat_interleave": lambda x: x.repeat_interleave(x.long()),
    "torch.tensor": lambda x: torch.tensor([1.0], device=x.device),
    "copy": lambda x: torch.ones(3).to(x.device),
    "blocking copy of pinned memory": lambda x: torch.ones(3).pin_memory().to(x.device),
    "copy of memory that is not pinned": lambda x: torch.ones(3).to(x, non_blocking=True),
    "copy in place": lambda x: x.copy_(torch.ones(3)),
}
FREE = {
    "arithmetic": lambda x: (x + 1) @ x.to(GPU),
    "indexing with integers": lambda x: x[x.long()],
    "repeat_interleave": lambda x: x.repeat_interleave(x.long(), output_size=5),
    "new tensors": lambda x: torch.full((3,), 2.0, device=x.device) + x.new_zeros(3),
    "copy of pinned memory": lambda x: torch.ones(3).pin_memory().to(GPU, non_blocking=True),
    "the host's own": lambda x: torch.ones(3).nonzero().tolist(),
}


@pytest.mark.parametrize("name", WAITING)
def test_what_waits_is_counted(name):
    with Synchronizations() as waits:
        WAITING[name](GPUTensor(torch.arange(1.0, 4.0).clamp(max=2)))
    assert waits.places.total() == 1


@pytest.mark.parametrize("name", FREE)
def test_nothing_else_is(name):
    with Synchronizations() as waits:
        FREE[name](GPUTensor(torch.arange(1.0, 4.0).clamp(max=2)))
    assert not waits.places


def take_step(config, model, batch, several_processes=None):
    """Places that waited in the second of two steps on the GPU, and the losses."""
    with Synchronizations() as waits:
        move_to_gpu(model)
        batch = pin_batch([pack_sample(sample) for sample in batch])
        step = TrainingStep(
            model,
            [batch] * 2,
            build_optimizer(config, model),
            accumulation_steps=config.SOLVER.ACCUMULATION_STEPS,
        )
        if several_processes is not None:
            several_processes()
        with EventStorage() as storage:
            for step.iter in range(2):
                waits.places.clear()  # the first step makes what the others keep
                step.run_step()
                storage.step()
    return waits.places, [loss for loss, _ in storage.history("total_loss").values()]


@pytest.mark.parametrize(
    ("kind", "images", "masks"), [("vit", 1, 3), ("vit", 6, 5), ("vit", 2, 0), ("convnext", 2, 3)]
)
def test_a_training_step_waits_once(request, kind, images, masks):
    """For all that it reports, whatever the batch; and it learns what it learns on the CPU."""
    config = make_tiny_config(request.getfixturevalue(f"tiny_{kind}_json"))
    config.merge_from_list(CLIPPING)
    torch.manual_seed(0)
    on_gpu = PixelCLIP(config)
    on_cpu, batch = copy.deepcopy(on_gpu), make_batch(images, masks)
    torch.manual_seed(1)
    places, losses = take_step(config, on_gpu, batch)
    assert places == {"engine/step_facts.py:share_facts: copy to the host": 1}
    torch.manual_seed(1)
    step = TrainingStep(on_cpu, [batch] * 2, build_optimizer(config, on_cpu))
    with EventStorage() as storage:
        for step.iter in range(2):
            step.run_step()
    expected = [loss for loss, _ in storage.history("total_loss").values()]
    assert losses == pytest.approx(expected, rel=1e-4)


def test_so_does_one_of_several_processes(tiny_config, tiny_model, monkeypatch):
    def be_one_of_two():
        monkeypatch.setattr(comm, "get_world_size", lambda: 2)
        monkeypatch.setattr(comm, "_get_global_gloo_group", lambda: None)
        monkeypatch.setattr(distributed, "_all_gather", lambda own, group=None: [own, own])

    places, _ = take_step(tiny_config, tiny_model, make_batch(2, 5), be_one_of_two)
    assert places.total() == 1


OPTIONS = {
    "queue": (["MODEL.PIXELCLIP.QUEUE_SIZE", 20], 0),
    "containers": (["MODEL.PIXELCLIP.CONTAINER_WEIGHT", 0.5], 0),
    "no clusters": (["MODEL.PIXELCLIP.ASSIGNMENT", "none"], 0),
    "parts": (["SOLVER.ACCUMULATION_STEPS", 2], 0),
    # Empty masks are left out, and k-means has 50 iterations, of which each tenth is a check.
    "DINO": (
        [
            *("MODEL.PIXELCLIP.MASK_SOURCE", "dino", "MODEL.PIXELCLIP.DINO.MODEL", "test_vit"),
            *("MODEL.PIXELCLIP.DINO.WEIGHTS", ""),
        ],
        6,
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_do_not_wait_for_each_image(tiny_config, name):
    options, further = OPTIONS[name]
    tiny_config.merge_from_list(options)
    model = PixelCLIP(tiny_config)
    if model.training_masks.dino is not None:
        move_to_gpu(model.training_masks.dino.features)
    places, _ = take_step(tiny_config, model, make_batch(8, 2))
    assert places.total() <= 1 + further, places


@pytest.fixture
def labels(tmp_path):
    """Three registered label maps of 20 classes."""
    generator, records = np.random.default_rng(0), []
    for index in range(3):
        path = tmp_path / f"{index}.png"
        Image.fromarray(generator.integers(0, 20, (150, 200)).astype(np.uint8)).save(path)
        records.append({"file_name": f"{index}.jpg", "sem_seg_file_name": str(path)})
    DatasetCatalog.register("labels_for_a_gpu", lambda: records)
    metadata = MetadataCatalog.get("labels_for_a_gpu")
    metadata.set(stuff_classes=[f"thing {index}" for index in range(20)], ignore_label=255)
    yield metadata
    DatasetCatalog.remove("labels_for_a_gpu")
    MetadataCatalog.remove("labels_for_a_gpu")


@pytest.mark.parametrize("mode", ["whole", "sliding_window", "given masks"])
def test_an_evaluation_waits_at_its_end(tiny_config, labels, mode):
    if mode == "given masks":
        tiny_config.MODEL.PIXELCLIP.TEST_MASKS = "given"
    else:
        tiny_config.TEST.INFERENCE_MODE = mode
    on_gpu = PixelCLIP(tiny_config).eval()
    on_cpu = copy.deepcopy(on_gpu)
    images = [x["image"].repeat_interleave(4, dim=2) for x in make_batch(3)]
    inputs = [
        {"image": image, "height": 150, "width": 200, "file_name": f"{index}.jpg"}
        for index, image in enumerate(images)
    ]
    if mode == "given masks":
        for one in inputs:
            one["masks"] = torch.rand(4, 32, 32) > 0.5
            one["mask_index_map"] = torch.randint(-1, 4, (150, 200))
    with Synchronizations() as waits:
        move_to_gpu(on_gpu)
        found = evaluate(on_gpu, labels, lambda start, stop: pin_batch(inputs[start:stop]), waits)
        assert waits.places == {"evaluation/evaluators.py:evaluate: copy to the host": 1}
    expected = evaluate(on_cpu, labels, lambda start, stop: inputs[start:stop])
    assert found == pytest.approx(expected, nan_ok=True, abs=0.1)


def evaluate(model, labels, batches, waits=None):
    """Metrics of two batches of one and two images; what waited before them is forgotten."""
    evaluator = LabelMapEvaluator(labels.name)
    evaluator.reset()
    model.set_vocabulary(labels.stuff_classes)
    model.text_classifier.features  # noqa: B018  (once for all images)
    if waits is not None:
        waits.places.clear()
    for start, stop in ((0, 1), (1, 3)):
        batch = batches(start, stop)
        evaluator.process(batch, LabelMapModel(model)(batch))
    return evaluator.evaluate()["sem_seg"]
