"""What is done in the processes that are killed, and how its results are looked at."""

import functools
import itertools
import json
import os
import shutil

import numpy as np
import torch
from detectron2.data import DatasetCatalog
from PIL import Image

from pixelclip.data.label_preparation import convert_label, label_tasks, prepare_files
from pixelclip.data.rle import sample_masks
from pixelclip.data.sa1b import load_sa1b
from pixelclip.data.sa1b_files import parse_mask_rles
from pixelclip.data.sa1b_index import load_tar_index
from pixelclip.engine import Trainer
from pixelclip.mask_generation.generate import generate_masks
from pixelclip.mask_generation.superpixels import SuperpixelGenerator
from tests.conftest import register_test_set
from tests.data.sa1b_files import write_tar
from tests.mask_generation.drawings import draw_regions
from tests.reliability import small_training
from tests.reliability.small_training import CONTEXT

# Importing this takes longer than the work: the server does it once.
CONTEXT.set_forkserver_preload([small_training.__name__, __name__])


class Training:
    """Twelve iterations, a checkpoint every second one, the data loaded by another process."""

    kills = 8
    at_writing = False
    overrides = ("SOLVER.MAX_ITER", 12, "SOLVER.CHECKPOINT_PERIOD", 2, "DATALOADER.NUM_WORKERS", 1)

    def prepare(self, folder):
        small_training.prepare(folder)

    def run(self, folder, output):
        small_training.train(small_training.make_config(folder, output, self.overrides))

    def check_whole(self, folder, output):
        for path in output.glob("*.pth"):
            torch.load(path, weights_only=True)
        last = output / "last_checkpoint"
        if last.exists():
            assert (output / last.read_text()).exists()
        log = output / "iterations.jsonl"
        lines = log.read_text().split("\n")[:-1] if log.exists() else []
        assert [json.loads(line)["iteration"] for line in lines] == list(range(1, len(lines) + 1))

    def check_same(self, folder, output, expected):
        logs = [(where / "iterations.jsonl").read_text() for where in (output, expected)]
        assert logs[0] == logs[1] and logs[0].count("\n") == 12
        last = [torch.load(where / "model_final.pth") for where in (output, expected)]
        assert {"model", "trainer", "data_loader", "iteration"} <= set(last[0])
        assert_same(*last)


class CheckpointWriting(Training):
    """The same, killed while a checkpoint is being written."""

    kills = 6
    at_writing = True
    overrides = ("SOLVER.MAX_ITER", 12, "SOLVER.CHECKPOINT_PERIOD", 1)


def assert_same(one, other, where="checkpoint"):
    """Equal bit for bit, however deep."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}[{key!r}]")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}[{number}]")
    else:
        assert one == other, where


class Indexing:
    """The index of three tars with 4,000 pairs each."""

    kills = 4
    at_writing = False

    def prepare(self, folder):
        (folder / "tars").mkdir(parents=True)
        for number in range(3):
            names = itertools.product(range(4000), (".jpg", ".json"))
            files = {f"sa_{number}_{i}{suffix}": f"{i}{suffix}".encode() for i, suffix in names}
            write_tar(folder / "tars" / f"sa_{number}.tar", files)

    def run(self, folder, output):
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        output.mkdir(exist_ok=True)
        for tar in (folder / "tars").iterdir():
            if tar.suffix == ".tar" and not (output / tar.name).exists():
                os.link(tar, output / tar.name)
        load_sa1b(output)

    def check_whole(self, folder, output):
        for tar in output.glob("*.tar"):
            index = load_tar_index(str(tar))
            if (output / f"{tar.name}.index.npz").exists():
                assert index is not None and len(index.table) == 4000 and not index.problems

    def check_same(self, folder, output, expected):
        assert all((output / f"sa_{number}.tar.index.npz").exists() for number in range(3))
        spans = [[list(r["image_span"]) for r in load_sa1b(where)] for where in (output, expected)]
        assert spans[0] == spans[1] and len(spans[0]) == 12_000


class Preparation:
    """400 label PNGs, by two threads."""

    kills = 4
    at_writing = False

    def prepare(self, folder):
        for name in ("images", "raw"):
            (folder / name).mkdir(parents=True)
        generator = np.random.default_rng(0)
        for number in range(400):
            Image.new("RGB", (60, 50)).save(folder / "images" / f"{number}.jpg")
            label = Image.fromarray(generator.integers(0, 3, (50, 60), np.uint8))
            label.save(folder / "raw" / f"{number}.png")

    def run(self, folder, output):
        names = [str(number) for number in range(400)]
        folders = folder / "images", folder / "raw", output / "labels"
        convert = functools.partial(convert_label, train_ids={0: 255, 1: 0, 2: 1})
        prepare_files(label_tasks(names, folders, convert), workers=2)

    def check_whole(self, folder, output):
        for path in (output / "labels").glob("*.png"):
            with Image.open(path) as image:
                image.load()

    def check_same(self, folder, output, expected):
        assert contents(output) == contents(expected)
        assert len(contents(output)) == 400


def contents(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


class MaskGeneration:
    """Superpixels of twelve images."""

    kills = 4
    at_writing = False

    def prepare(self, folder):
        (folder / "images").mkdir(parents=True)
        for number in range(12):
            image = Image.fromarray(draw_regions(48, 64, number)[0])
            image.save(folder / "images" / f"{number}.png")

    def run(self, folder, output):
        generate_masks(folder / "images", output, SuperpixelGenerator(), num_workers=1)

    def check_whole(self, folder, output):
        for path in (output / "images").glob("*.json"):
            rles = parse_mask_rles(path.read_bytes())
            assert sample_masks(rles, range(48), range(64), (48, 64)).any(axis=(1, 2)).all()
            with Image.open(path.with_suffix(".png")) as image:
                image.load()

    def check_same(self, folder, output, expected):
        assert contents(output) == contents(expected)


class Evaluation:
    """A model on four sets of three images."""

    kills = 4
    at_writing = False

    def prepare(self, folder):
        small_training.prepare(folder)

    def run(self, folder, output):
        cfg = small_training.make_config(folder, output)
        cfg.DATASETS.TEST = tuple(f"killed_{number}_sem_seg" for number in range(4))
        for name in cfg.DATASETS.TEST:
            if name not in DatasetCatalog:
                shutil.rmtree(folder / name, ignore_errors=True)
                register_test_set(folder / name, name)
        torch.set_num_threads(1)
        torch.manual_seed(0)
        Trainer.test(cfg, Trainer.build_model(cfg))

    def check_whole(self, folder, output):
        for path in (output / "evaluation").glob("*.json"):
            json.loads(path.read_bytes())

    def check_same(self, folder, output, expected):
        metrics = [
            {
                path.name: json.loads(path.read_bytes())["metrics"]
                for path in (where / "evaluation").glob("killed_*.json")
            }
            for where in (output, expected)
        ]
        assert metrics[0] == metrics[1] and len(metrics[0]) == 4
        assert (output / "evaluation" / "benchmark.md").exists()


def work(kind, folder, output, report):
    """The target of the processes: prints go to ``report``."""
    small_training.speak_to(report)
    kind().run(folder, output)
