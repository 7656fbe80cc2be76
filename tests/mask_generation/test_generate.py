"""From a folder of photographs to a training on the masks found in them."""

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
from pycocotools import mask as coco_mask

from pixelclip.data.mask_annotations import parse_mask_rles
from pixelclip.data.record_reading import read_annotation_bytes, read_image_bytes
from pixelclip.data.sa1b import load_sa1b
from pixelclip.engine import Trainer
from pixelclip.mask_generation import generate
from pixelclip.mask_generation.generate import choose_devices, generate_masks
from pixelclip.mask_generation.generators import GeneratorChoice
from pixelclip.mask_generation.superpixels import SuperpixelGenerator

from .drawings import draw_regions

ROOT = Path(__file__).resolve().parents[2]
SUPERPIXELS = GeneratorChoice()


@pytest.fixture
def images(tmp_path):
    """Four pictures in two folders."""
    folder = tmp_path / "images"
    for index, name in enumerate(["a.png", "b.jpg", "deep/er/a.png", "c.webp"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_regions(60, 80, index)[0]).save(folder / name)
    return folder


def run(images, output, **options):
    return generate_masks(images, output, SUPERPIXELS, **{"num_workers": 1, **options})


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_training_reads_what_was_written(images, tmp_path):
    summary = run(images, tmp_path / "out")
    records = load_sa1b(tmp_path / "out" / "photographs")
    assert [record["image_id"] for record in records] == ["a", "b", "c", "a"]
    counts = []
    for record, name in zip(records, ["a.png", "b.jpg", "c.webp", "deep/er/a.png"], strict=True):
        pixels = np.asarray(Image.open(images / name).convert("RGB"))
        if name != "c.webp":
            assert read_image_bytes(record) == (images / name).read_bytes()
        found = list(SuperpixelGenerator().generate(pixels))
        codes = parse_mask_rles(read_annotation_bytes(record))
        for code, one in zip(codes, found, strict=True):
            assert np.array_equal(coco_mask.decode(code), one.mask)
        counts.append(len(found))
    assert summary.masks_per_photograph["mean"] == np.mean(counts)
    assert (summary.photographs, summary.finished_before, summary.skipped) == (4, 0, ())
    assert summary.coverage > 0.99
    stored = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert stored["masks_per_photograph"]["most"] == max(counts)
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert sheet.width == 1280


def test_two_iterations_of_training_run_on_it(train_config, images, tmp_path, monkeypatch):
    run(images, tmp_path / "out")
    monkeypatch.setenv("SAM_DATASETS", str(tmp_path / "out" / "photographs"))
    train_config.SOLVER.MAX_ITER = 2
    train_config.DATASETS.TEST = ()
    trainer = Trainer(train_config)
    trainer.resume_or_load(resume=False)
    trainer.train()
    lines = Path(train_config.OUTPUT_DIR, "iterations.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["iteration"] for entry in entries] == [1, 2]
    assert all(entry["total_loss"] > 0 and not entry["skipped_records"] for entry in entries)


def test_finished_photographs_are_left_alone(images, tmp_path, monkeypatch):
    run(images, tmp_path / "out")
    before = contents(tmp_path / "out" / "photographs")
    (tmp_path / "out" / "photographs" / "a.json").unlink()
    (tmp_path / "out" / "photographs" / "b.json").write_text('{"annotations": [')
    (tmp_path / "out" / "photographs" / "c.jpg").unlink()
    built = []

    def build(*_):
        built.append(1)
        return SuperpixelGenerator()

    monkeypatch.setattr(GeneratorChoice, "build", build)
    assert run(images, tmp_path / "out").finished_before == 1
    assert contents(tmp_path / "out" / "photographs") == before
    assert run(images, tmp_path / "out").finished_before == 4
    assert len(built) == 1, "nothing is built where nothing is to do"


def test_a_photograph_that_changed_is_done_again(images, tmp_path):
    run(images, tmp_path / "out")
    Image.fromarray(draw_regions(50, 90, 9)[0]).save(images / "a.png")
    later = (tmp_path / "out" / "photographs" / "a.json").stat().st_mtime_ns + 10**9
    os.utime(images / "a.png", ns=(later, later))
    assert run(images, tmp_path / "out").finished_before == 3
    content = json.loads((tmp_path / "out" / "photographs" / "a.json").read_text())
    assert (content["image"]["height"], content["image"]["width"]) == (50, 90)


@pytest.mark.parametrize("hours", [-100_000, 0])
def test_a_photograph_replaced_by_an_older_one_is_done_again(images, tmp_path, hours):
    stamp = (images / "a.png").stat().st_mtime_ns
    run(images, tmp_path / "out")
    Image.fromarray(draw_regions(50, 90, 9)[0]).save(images / "a.png")
    os.utime(images / "a.png", ns=(stamp, stamp + hours * 3600 * 10**9))
    assert run(images, tmp_path / "out").finished_before == 3
    content = json.loads((tmp_path / "out" / "photographs" / "a.json").read_text())
    assert (content["image"]["height"], content["image"]["width"]) == (50, 90)
    assert run(images, tmp_path / "out").finished_before == 4


def test_masks_that_do_not_say_what_they_were_made_of_are_kept(images, tmp_path):
    run(images, tmp_path / "out")
    path = tmp_path / "out" / "photographs" / "a.json"
    content = json.loads(path.read_bytes())
    del content["source"]
    path.write_text(json.dumps(content))
    assert run(images, tmp_path / "out").finished_before == 4
    later = path.stat().st_mtime_ns + 10**9
    os.utime(images / "a.png", ns=(later, later))
    assert run(images, tmp_path / "out").finished_before == 3


def test_broken_photographs_are_skipped_counted_and_named(images, tmp_path):
    whole = (images / "b.jpg").read_bytes()
    (images / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "empty.png").touch()
    (images / "text.jpg").write_text("not an image")
    summary = run(images, tmp_path / "out")
    assert summary.photographs == 7
    assert len(summary.skipped) == 3
    for name, problem in zip(["cut.jpg", "empty.png", "text.jpg"], summary.skipped, strict=True):
        assert name in problem
    assert len(load_sa1b(tmp_path / "out" / "photographs")) == 4
    assert len(list((tmp_path / "out" / "photographs").iterdir())) == 7


def test_file_names_need_not_be_text(images, tmp_path):
    name = os.fsdecode(b"\xff.jpg")
    (images / name).write_bytes((images / "b.jpg").read_bytes())
    (images / os.fsdecode(b"\xfe.jpg")).touch()
    summary = run(images, tmp_path / "out")
    assert (tmp_path / "out" / "photographs" / name).exists()
    assert "\\udcfe.jpg" in str(summary).encode().decode()


def test_links_lead_to_the_photographs(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        generate_masks(Path("images"), Path("out"), SUPERPIXELS, link=True, num_workers=1)
    copies = tmp_path / "out" / "photographs"
    assert (copies / "a.png").is_symlink()
    assert (copies / "a.png").read_bytes() == (images / "a.png").read_bytes()
    assert not (copies / "c.jpg").is_symlink()
    assert len(load_sa1b(copies)) == 4


def test_two_generators_do_not_share_a_folder(images, tmp_path):
    run(images, tmp_path / "out")
    other = GeneratorChoice("dino", num_clusters=3)
    with pytest.raises(ValueError, match="holds masks of the generator.*superpixels.*choose"):
        generate_masks(images, tmp_path / "out", other)


def test_two_folders_of_photographs_do_not_share_an_output(images, tmp_path, monkeypatch):
    run(images, tmp_path / "out")
    before = contents(tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.png").write_bytes((images / "a.png").read_bytes())
    with pytest.raises(ValueError, match="of the photographs in .*images, not .*other; choose"):
        run(tmp_path / "other", tmp_path / "out")
    assert contents(tmp_path / "out") == before
    monkeypatch.chdir(tmp_path)
    assert run(Path("images"), Path("out")).finished_before == 4
    path = tmp_path / "out" / "generator.json"
    path.write_text(json.dumps(SUPERPIXELS.__dict__))  # as it was before
    assert run(images, tmp_path / "out").finished_before == 4
    assert json.loads(path.read_bytes())["images"] == str(images.resolve())


def test_photographs_without_masks_are_counted(images, tmp_path, monkeypatch):
    monkeypatch.setattr(SuperpixelGenerator, "generate", lambda *_: iter(()))
    summary = run(images, tmp_path / "out")
    assert (summary.without_masks, summary.coverage) == (4, 0)
    assert not (tmp_path / "out" / "contact_sheet.png").exists()
    assert run(images, tmp_path / "out").finished_before == 4


@pytest.mark.slow
def test_several_workers_write_the_same(images, tmp_path):
    run(images, tmp_path / "one")
    run(images, tmp_path / "two", num_workers=2)
    one, two = (contents(tmp_path / name) for name in ("one", "two"))
    assert one == two


def start_tool(images, output, *extra_code):
    """Run the tool in a process of its own, after some code."""
    arguments = ["--images", str(images), "--output", str(output), "--num-workers", "1"]
    run_it = f"import generate_masks, sys\nsys.exit(generate_masks.main({arguments}))"
    code = "\n".join([*extra_code, run_it])
    path = os.pathsep.join([str(ROOT), str(ROOT / "tools")])
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


KILL_IN_THE_THIRD_JSON = """
import os, signal
replaced = []
replace = os.replace
def replace_or_die(source, target):
    replaced.append(target)
    if sum(str(path).endswith('.json') for path in replaced) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = replace_or_die
"""


@pytest.mark.slow
def test_a_killed_run_leaves_whole_files_and_goes_on(images, tmp_path):
    killed = start_tool(images, tmp_path / "out", KILL_IN_THE_THIRD_JSON)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    copies = tmp_path / "out" / "photographs"
    finished = {path: path.stat().st_mtime_ns for path in copies.rglob("*.json")}
    assert len(finished) == 1
    assert len(list(copies.rglob("*.tmp"))) == 1, "the file that was being written"
    summary = run(images, tmp_path / "out")
    assert summary.finished_before == 1
    assert all(path.stat().st_mtime_ns == time for path, time in finished.items())
    run(images, tmp_path / "whole")
    assert contents(copies) == contents(tmp_path / "whole" / "photographs")


@pytest.mark.slow
def test_two_processes_at_once_make_one_result(images, tmp_path):
    processes = [start_tool(images, tmp_path / "out") for _ in range(2)]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    run(images, tmp_path / "alone")
    results = (contents(tmp_path / name / "photographs") for name in ("out", "alone"))
    assert next(results) == next(results)


def test_a_network_gets_a_gpu_for_each_process(monkeypatch):
    dino = GeneratorChoice("dino")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(device) for device in choose_devices(dino, 3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert len(choose_devices(dino, None)) == 2
    assert set(choose_devices(SUPERPIXELS, 3)) == {torch.device("cpu")}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(generate.os, "cpu_count", lambda: 6)
    assert choose_devices(dino, None) == [torch.device("cpu")]
    assert len(choose_devices(SUPERPIXELS, None)) == 6
    with pytest.raises(ValueError, match="0 workers"):
        choose_devices(dino, 0)
