"""``tools/train_net.py --eval-only`` in processes of its own, on miniature benchmarks."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixelclip import PixelCLIP
from pixelclip.data.datasets import BENCHMARKS

from ..conftest import make_tiny_config

ROOT = Path(__file__).resolve().parents[2]
SETS = ("ade20k_150_test_sem_seg", "voc_2012_test_sem_seg", "context_59_test_sem_seg")
ABSENT = "coco_2017_test_stuff_all_sem_seg"
# The third set is large enough to be killed in the middle of it.
NUM_IMAGES = (3, 4, 500)


@pytest.fixture
def benchmarks_root(tmp_path):
    """A root with three prepared benchmarks of few small images."""
    for benchmark in BENCHMARKS:
        if benchmark.name in SETS:
            write_benchmark(tmp_path, benchmark, NUM_IMAGES[SETS.index(benchmark.name)])
    return tmp_path


def write_benchmark(root, benchmark, count):
    generator = np.random.default_rng(count)
    names = [f"image_{index:04d}" for index in range(count)]
    for folder in (benchmark.image_folder, benchmark.label_folder):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        image = generator.integers(0, 256, (30, 40, 3), np.uint8)
        label = generator.choice([0, 1, 2, 255], (30, 40)).astype(np.uint8)
        Image.fromarray(image).save(root / benchmark.image_folder / f"{name}.jpg")
        Image.fromarray(label).save(root / benchmark.label_folder / f"{name}.png")
    if benchmark.image_list:
        (root / benchmark.image_list).parent.mkdir(parents=True, exist_ok=True)
        (root / benchmark.image_list).write_text("".join(f"{name}\n" for name in names))


@pytest.fixture
def command(benchmarks_root, tmp_path, tiny_vit_json):
    """Arguments that evaluate a tiny checkpoint into a folder, and the environment."""
    torch.manual_seed(0)
    weights = str(tmp_path / "weights.pth")
    torch.save({"model": PixelCLIP(make_tiny_config(tiny_vit_json)).state_dict()}, weights)
    overrides = [
        *("MODEL.CLIP.ARCH", tiny_vit_json, "MODEL.CLIP.PRETRAINED", ""),
        *("MODEL.CLIP.RESOLUTION", "(64, 64)", "MODEL.PIXELCLIP.MASK_RESOLUTION", "(32, 32)"),
        *("MODEL.PIXELCLIP.NUM_CLUSTERS", "8", "MODEL.PIXELCLIP.TEST_FEATURE_SIZE", "(8, 8)"),
        *("MODEL.WEIGHTS", weights, "DATASETS.TEST", str(SETS), "INPUT.MIN_SIZE_TEST", "30"),
        *("DATALOADER.NUM_WORKERS", "0", "TEST.PUBLISHED_ROW", "ViT-B/16 SA-1B"),
    ]
    environment = {**os.environ, "DETECTRON2_DATASETS": str(benchmarks_root)}

    def arguments(output, *extra):
        config = ["--config-file", str(ROOT / "configs" / "pixelclip_vitb16.yaml"), "--eval-only"]
        last = ["OUTPUT_DIR", str(tmp_path / output), *extra]
        return [str(ROOT / "tools" / "train_net.py"), *config, *overrides, *last]

    return arguments, environment


def run(arguments, environment, launcher=(sys.executable,)):
    result = subprocess.run(
        [*launcher, *arguments], env=environment, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def rows_of(folder):
    rows = json.loads((folder / "evaluation" / "benchmark.json").read_text())["rows"]
    return [{k: v for k, v in row.items() if k not in ("images per second",)} for row in rows]


@pytest.mark.slow
def test_killed_in_the_third_set_it_resumes_there(command, tmp_path):
    arguments, environment = command
    run(arguments("whole"), environment)
    killed = subprocess.Popen(
        [sys.executable, *arguments("killed")],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    # The progress bar of the third set says that it is at work.
    said = b""
    while SETS[2].encode() not in said:
        assert killed.poll() is None, said.decode()
        said += os.read(killed.stderr.fileno(), 4096)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stderr.close()
    folder = tmp_path / "killed" / "evaluation"
    finished = {path: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    assert {path.stem for path in finished} == set(SETS[:2])
    output = run(arguments("killed"), environment)
    assert output.count("its result is taken from") == 2
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "whole")
    assert (folder / "benchmark.md").read_text() in output


@pytest.mark.slow
def test_two_processes_give_the_table_of_one_and_resume_it(command, tmp_path):
    arguments, environment = command
    environment = {**environment, "OMP_NUM_THREADS": "1"}
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    two_sets = ("DATASETS.TEST", str((SETS[0], ABSENT, SETS[1])))
    run(arguments("one", *two_sets), environment)
    run(arguments("two", *two_sets), environment, torchrun)
    one, two = rows_of(tmp_path / "one"), rows_of(tmp_path / "two")
    for rows in (one, two):
        for row in rows:
            row.pop("images timed")  # each process has its own warm-up
    assert two == one
    assert "prepare coco_stuff" in one[1]["note"]
    (tmp_path / "two" / "evaluation" / f"{SETS[1]}.json").unlink()
    output = run(arguments("two", *two_sets), environment, torchrun)
    assert output.count("its result is taken from") == 1
    two = rows_of(tmp_path / "two")
    assert [row["mIoU"] for row in two] == [row["mIoU"] for row in one]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (SETS, f"error: No data set of DATASETS.TEST can be evaluated.\n{SETS[0]}: "),
        ((), "error: DATASETS.TEST is empty"),
    ],
)
def test_nothing_there_ends_in_a_sentence(command, tmp_path, names, problem):
    arguments, environment = command
    environment = {**environment, "DETECTRON2_DATASETS": str(tmp_path / "nowhere")}
    given = arguments("nothing", "DATASETS.TEST", str(names))
    result = subprocess.run(
        [sys.executable, *given], env=environment, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 1
    assert problem in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "nothing" / "evaluation").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pixelclip_vitb16", "pixelclip_convnextb"])
def test_mask_classification_is_a_config(command, tmp_path, name):
    arguments, environment = command
    config = str(ROOT / "configs" / "mask_classification" / f"{name}.yaml")
    given = arguments("masks", "DATASETS.TEST", str(SETS[:2]))
    given[given.index("--config-file") + 1] = config
    output = run([*given, "MODEL.CLIP.FINETUNE", "attention"], environment)
    assert "mask accuracy" in output
    [first, _] = rows_of(tmp_path / "masks")
    assert 0 <= first["mask accuracy"] <= 100
