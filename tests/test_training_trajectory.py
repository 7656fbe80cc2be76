"""Six steps of the published training: optimizer, schedule, clipping, momentum teacher and loop.

They are compared twice. The golden ones start from ``reference_checkpoint.pth`` and were recorded
with the published implementation. Their weights and images are too large to keep in the repository;
so that a clone without them notices a change too, ``recorded_trajectory.json`` was recorded with
this project's code while it agreed with the golden ones. To record it again after an intended
change: ``python -m tests.test_training_trajectory``.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Instances
from detectron2.utils.events import EventStorage

from pixelclip.checkpoint import published_name
from pixelclip.engine import Trainer
from pixelclip.engine.setup import load_config

from .conftest import RecordingAssignment
from .made_up_model import (
    RESOLUTIONS,
    fill_with_made_up_numbers,
    made_up_batch,
    write_clip_config,
)

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
RECORDED = Path(__file__).with_name("recorded_trajectory.json")
STEPS = 6
CONFIGS = {"vit": "configs/pixelclip_vitb16.yaml", "convnext": "configs/pixelclip_convnextb.yaml"}
# Entries that are kept of each tensor that changed, about.
GOLDEN_ENTRIES, RECORDED_ENTRIES = 256, 8

# AdamW's first steps enlarge what another order of sums changes.
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the golden numbers are not at {GOLDEN}")
@pytest.mark.parametrize("kind", CONFIGS)
def test_follows_the_published_training(kind, tmp_path):
    folder = GOLDEN / kind
    expected = dict(np.load(folder / "trajectory.npz"))
    batches = [[golden_inputs(expected, f"{i}/{j}") for j in range(2)] for i in range(STEPS)]
    trainer = build_trainer(golden_config(folder, tmp_path), batches)
    trainer.resume_or_load(resume=False)
    assert_equal_training(train(trainer), expected, GOLDEN_ENTRIES)


@pytest.mark.parametrize("kind", CONFIGS)
def test_follows_the_recorded_training(kind, tmp_path):
    expected = json.loads(RECORDED.read_text())[kind]
    trainer = build_made_up_trainer(kind, tmp_path)
    assert_equal_training(train(trainer), expected, RECORDED_ENTRIES)


def published_config(kind, output_folder, *overrides):
    """The published settings, but for the size of the model and without data sets."""
    return load_config(
        CONFIGS[kind],
        [
            *("MODEL.DEVICE", "cpu", "MODEL.CLIP.PRETRAINED", "", "MODEL.PIXELCLIP.NUM_CLUSTERS"),
            *("8", "DATASETS.TRAIN", "()", "DATASETS.TEST", "()", "SOLVER.MAX_ITER", "20"),
            *("OUTPUT_DIR", str(output_folder), *overrides),
        ],
    )


def golden_config(folder, output_folder):
    case = json.loads((folder / "case.json").read_text())
    return published_config(
        folder.name,
        output_folder,
        *("MODEL.WEIGHTS", str(folder / "reference_checkpoint.pth")),
        *("MODEL.CLIP.ARCH", str(next(folder.glob("clip_tiny_*.json")))),
        *("MODEL.CLIP.RESOLUTION", str(case["clip_resolution"])),
        *("MODEL.PIXELCLIP.MASK_RESOLUTION", str(case["mask_resolution"])),
    )


def golden_inputs(arrays, prefix):
    image = torch.from_numpy(arrays[f"{prefix}/image"])
    masks = np.unpackbits(arrays[f"{prefix}/masks"], axis=-1, count=image.shape[2])
    return {
        "image": image,
        "image_strong": torch.from_numpy(arrays[f"{prefix}/image_strong"]),
        "instances": Instances(image.shape[1:], gt_masks=BitMasks(masks.astype(bool))),
    }


class GivenBatches(list):
    """A loader of given batches, with what the trainer reads of one."""

    def state_dict(self):
        return {"num_records": len(self)}


def build_trainer(config, batches):
    class TrainerOnGivenBatches(Trainer):
        @classmethod
        def build_train_loader(cls, cfg, seed=0):
            return GivenBatches(batches)

    return TrainerOnGivenBatches(config)


def build_made_up_trainer(kind, folder):
    config = published_config(
        kind,
        folder,
        *("MODEL.CLIP.ARCH", write_clip_config(folder, kind)),
        *("MODEL.CLIP.RESOLUTION", str(RESOLUTIONS[kind])),
        *("MODEL.PIXELCLIP.MASK_RESOLUTION", "(32, 32)"),
    )
    trainer = build_trainer(config, [made_up_batch((5, 3), seed=step) for step in range(STEPS)])
    fill_with_made_up_numbers(trainer.model)
    return trainer


def train(trainer):
    """Numbers of each step, and the change (tensor) of each weight, by published name."""
    model, step = trainer.model, trainer._trainer
    before = {name: value.clone() for name, value in model.state_dict().items()}
    steps = []
    step.compute_gradients = also_record(step.compute_gradients, model, steps)
    assignment = RecordingAssignment(model)
    with EventStorage() as trainer.storage:
        trainer.before_train()
        for trainer.iter in range(STEPS):
            steps.append({"lr": sorted({g["lr"] for g in step.optimizer.param_groups})})
            trainer.before_step()
            trainer.run_step()
            trainer.after_step()
            steps[-1]["assignment"] = assignment.recorded[-1].tolist()
    changes = {n: value - before[n] for n, value in model.state_dict().items()}
    return steps, {published_name(n): change for n, change in changes.items() if change.any()}


def also_record(compute_gradients, model, steps):
    def compute_and_record(batch):
        losses = compute_gradients(batch)
        norms = [p.grad.norm() for p in model.parameters() if p.grad is not None]
        steps[-1]["loss"] = losses["loss_masks"].item()
        steps[-1]["grad_norm"] = torch.stack(norms).norm().item()  # not clipped yet
        return losses

    return compute_and_record


def every_nth(tensor, count):
    flat = tensor.flatten()
    return flat[:: max(1, len(flat) // count)].numpy()


def assert_equal_training(actual, expected, entries):
    """Expected: with the keys of ``trajectory.npz``; ``margin``, where it is given, is that of the
    two best clusters of a mask."""
    steps, changes = actual
    for i, step in enumerate(steps):
        assert step["loss"] == pytest.approx(float(expected[f"{i}/loss"]), abs=1e-3)
        assert step["lr"] == pytest.approx(list(expected[f"{i}/lr"]), rel=0, abs=1e-9)
        assert step["grad_norm"] == pytest.approx(float(expected[f"{i}/grad_norm"]), rel=0.01)
        differs = np.not_equal(step["assignment"], expected[f"{i}/assignment"])
        # Between clusters that are nearly equal, rounding may decide.
        assert differs.sum() <= (expected.get(f"{i}/margin", 1) < 1e-4)
    names = {name.partition("/")[2] for name in expected if name.startswith("change/")}
    assert set(changes) == names
    for name, change in changes.items():
        norm = float(expected[f"change_norm/{name}"])
        assert change.norm().item() == pytest.approx(norm, rel=0.02), name
        spread = np.asarray(expected[f"change/{name}"])
        difference = np.linalg.norm(every_nth(change, entries) - spread)
        assert difference <= 0.02 * np.linalg.norm(spread), name


def record():
    trainings = ",\n".join(f' "{kind}": {{\n{_record_one(kind)}\n }}' for kind in CONFIGS)
    RECORDED.write_text(f"{{\n{trainings}\n}}\n")


def _record_one(kind):
    """JSON lines, one for each key."""
    with tempfile.TemporaryDirectory() as folder:
        steps, changes = train(build_made_up_trainer(kind, Path(folder)))
    found = {f"{i}/{key}": value for i, step in enumerate(steps) for key, value in step.items()}
    found |= {f"change_norm/{name}": change.norm().item() for name, change in changes.items()}
    found |= {f"change/{name}": every_nth(c, RECORDED_ENTRIES) for name, c in changes.items()}
    return ",\n".join(f'  "{key}": {_short(value)}' for key, value in found.items())


def _short(value):
    if isinstance(value, (list, np.ndarray)):
        return "[" + ", ".join(map(_short, value)) + "]"
    return f"{value:.8g}"


if __name__ == "__main__":
    record()
