"""From a folder of images to a training on the masks found in them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from pixelclip.data.sa1b import load_sa1b
from pixelclip.data.sa1b_files import parse_mask_rles, read_annotation_bytes, read_image_bytes
from pixelclip.engine import Trainer
from pixelclip.mask_generation.dino_generator import DINO
from pixelclip.mask_generation.generate import COPIES, find_images, find_status, generate_masks
from pixelclip.mask_generation.superpixels import SuperpixelGenerator
from pixelclip.utils.shards import Shard

from .drawings import draw_regions

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def images(tmp_path):
    """Four images in two folders."""
    folder = tmp_path / "images"
    for index, name in enumerate(["a.png", "b.jpg", "deep/er/a.png", "c.webp"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_regions(60, 80, index)[0]).save(folder / name)
    return folder


def run(images, output, **options):
    return generate_masks(images, output, SuperpixelGenerator(), **{"num_workers": 1, **options})


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_training_reads_what_was_written(images, tmp_path):
    summary = run(images, tmp_path / "out")
    records = load_sa1b(tmp_path / "out" / "images")
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
    assert summary.masks_per_image["mean"] == np.mean(counts)
    assert (summary.images, summary.finished_before, summary.skipped) == (4, 0, ())
    assert summary.coverage > 0.99
    stored = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert stored["masks_per_image"]["most"] == max(counts)
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert sheet.width == 1280


def test_two_iterations_of_training_run_on_it(train_config, images, tmp_path, monkeypatch):
    run(images, tmp_path / "out")
    monkeypatch.setenv("SAM_DATASETS", str(tmp_path / "out" / "images"))
    train_config.SOLVER.MAX_ITER = 2
    train_config.DATASETS.TEST = ()
    trainer = Trainer(train_config)
    trainer.resume_or_load(resume=False)
    trainer.train()
    lines = Path(train_config.OUTPUT_DIR, "iterations.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["iteration"] for entry in entries] == [1, 2]
    assert all(entry["total_loss"] > 0 and not entry["skipped_records"] for entry in entries)


def test_finished_images_are_left_alone(images, tmp_path, monkeypatch):
    run(images, tmp_path / "out")
    before = contents(tmp_path / "out" / "images")
    (tmp_path / "out" / "images" / "a.json").unlink()
    (tmp_path / "out" / "images" / "b.json").write_text('{"annotations": [')
    (tmp_path / "out" / "images" / "c.jpg").unlink()
    loaded = []
    monkeypatch.setattr(SuperpixelGenerator, "load", lambda *_: loaded.append(1))
    assert run(images, tmp_path / "out").finished_before == 1
    assert contents(tmp_path / "out" / "images") == before
    assert run(images, tmp_path / "out").finished_before == 4
    assert len(loaded) == 3, "nothing is loaded where nothing is to do"


def test_an_image_that_changed_is_done_again(images, tmp_path):
    run(images, tmp_path / "out")
    Image.fromarray(draw_regions(50, 90, 9)[0]).save(images / "a.png")
    later = (tmp_path / "out" / "images" / "a.json").stat().st_mtime_ns + 10**9
    os.utime(images / "a.png", ns=(later, later))
    assert run(images, tmp_path / "out").finished_before == 3
    content = json.loads((tmp_path / "out" / "images" / "a.json").read_text())
    assert (content["image"]["height"], content["image"]["width"]) == (50, 90)


@pytest.mark.parametrize("hours", [-100_000, 0])
def test_an_image_replaced_by_an_older_one_is_done_again(images, tmp_path, hours):
    stamp = (images / "a.png").stat().st_mtime_ns
    run(images, tmp_path / "out")
    Image.fromarray(draw_regions(50, 90, 9)[0]).save(images / "a.png")
    os.utime(images / "a.png", ns=(stamp, stamp + hours * 3600 * 10**9))
    assert run(images, tmp_path / "out").finished_before == 3
    content = json.loads((tmp_path / "out" / "images" / "a.json").read_text())
    assert (content["image"]["height"], content["image"]["width"]) == (50, 90)
    assert run(images, tmp_path / "out").finished_before == 4


def test_corrupt_images_are_skipped_counted_and_named(images, tmp_path):
    whole = (images / "b.jpg").read_bytes()
    (images / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "empty.png").touch()
    (images / "text.jpg").write_text("not an image")
    summary = run(images, tmp_path / "out")
    assert summary.images == 7
    assert len(summary.skipped) == 3
    for name, problem in zip(["cut.jpg", "empty.png", "text.jpg"], summary.skipped, strict=True):
        assert name in problem
    assert len(load_sa1b(tmp_path / "out" / "images")) == 4
    assert len(list((tmp_path / "out" / "images").iterdir())) == 7


def test_file_names_need_not_be_text(images, tmp_path):
    name = os.fsdecode(b"\xff.jpg")
    (images / name).write_bytes((images / "b.jpg").read_bytes())
    (images / os.fsdecode(b"\xfe.jpg")).touch()
    summary = run(images, tmp_path / "out")
    assert (tmp_path / "out" / "images" / name).exists()
    assert "\\udcfe.jpg" in str(summary).encode().decode()


def test_links_lead_to_the_images(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        generate_masks(Path("images"), Path("out"), SuperpixelGenerator(), link=True, num_workers=1)
    copies = tmp_path / "out" / "images"
    assert (copies / "a.png").is_symlink()
    assert (copies / "a.png").read_bytes() == (images / "a.png").read_bytes()
    assert not (copies / "c.jpg").is_symlink()
    assert len(load_sa1b(copies)) == 4


def test_two_generators_do_not_share_a_folder(images, tmp_path):
    run(images, tmp_path / "out")
    other = DINO(num_clusters=3)
    with pytest.raises(ValueError, match="holds masks of the generator.*superpixels.*choose"):
        generate_masks(images, tmp_path / "out", other)


def test_two_folders_of_images_do_not_share_an_output(images, tmp_path, monkeypatch):
    run(images, tmp_path / "out")
    before = contents(tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.png").write_bytes((images / "a.png").read_bytes())
    with pytest.raises(ValueError, match="'images': .*images'}, not of .*other'}; choose"):
        run(tmp_path / "other", tmp_path / "out")
    assert contents(tmp_path / "out") == before
    monkeypatch.chdir(tmp_path)
    assert run(Path("images"), Path("out")).finished_before == 4


def test_images_without_masks_are_counted(images, tmp_path, monkeypatch):
    monkeypatch.setattr(SuperpixelGenerator, "generate", lambda *_: iter(()))
    summary = run(images, tmp_path / "out")
    assert (summary.without_masks, summary.coverage) == (4, 0)
    assert not (tmp_path / "out" / "contact_sheet.png").exists()
    assert run(images, tmp_path / "out").finished_before == 4


@pytest.mark.slow
def test_shards_write_what_a_single_process_writes(images, tmp_path):
    (images / "bad.jpg").touch()
    run(images, tmp_path / "alone")
    summaries = [run(images, tmp_path / "out", shard=Shard(index, 3)) for index in range(3)]
    assert sum(summary.images for summary in summaries) == 5
    [problem] = [problem for summary in summaries for problem in summary.skipped]
    assert f"{images / 'bad.jpg'} is empty" in problem
    reports = {"summary.json", "contact_sheet.png"}
    assert contents(tmp_path / "alone").keys() - contents(tmp_path / "out").keys() == reports
    assert run(images, tmp_path / "out").finished_before == 4
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")


def status_of(images, output, num_shards=1):
    status = find_status(images, output, SuperpixelGenerator())
    return status.is_complete, status.describe(num_shards).splitlines()


def test_the_status_says_what_is_done(images, tmp_path, monkeypatch):
    (images / "bad.jpg").touch()
    assert status_of(images, tmp_path / "out") == (False, ["0 of 5 done, 5 left"])
    assert not (tmp_path / "out").exists()
    for index in range(2):
        is_complete, lines = status_of(images, tmp_path / "out", 2)
        done = [line.split() for line in lines if line.startswith("shard")]
        assert [words[2] == words[4] for words in done] == [index > 0, False]
        assert not is_complete
        run(images, tmp_path / "out", shard=Shard(index, 2))
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("read an image"))
    is_complete, lines = status_of(images, tmp_path / "out")
    assert is_complete and lines[-1] == "5 of 5 done (1 with problems), 0 left"
    assert lines[0].startswith(f"problem: {images / 'bad.jpg'} is empty") and len(lines) == 2
    with pytest.raises(ValueError, match="holds masks of the generator"):
        find_status(images, tmp_path / "out", DINO())


def test_a_problem_is_forgotten_when_the_image_is_fixed(images, tmp_path):
    (images / "c.webp").rename(tmp_path / "whole.webp")
    (images / "c.webp").touch()
    run(images, tmp_path / "out")
    assert contents(tmp_path / "out" / "problems").keys() == {"c.txt"}
    (tmp_path / "whole.webp").rename(images / "c.webp")
    run(images, tmp_path / "out")
    assert contents(tmp_path / "out" / "problems") == {}
    assert status_of(images, tmp_path / "out") == (True, ["4 of 4 done, 0 left"])


@pytest.mark.slow
def test_several_workers_write_the_same(images, tmp_path):
    run(images, tmp_path / "one")
    run(images, tmp_path / "two", num_workers=2)
    one, two = (contents(tmp_path / name) for name in ("one", "two"))
    assert one == two


def start_tool(images, output, *extra_code):
    """Run the tool in a process of its own, after some code."""
    arguments = [str(images), "--output", str(output), "--workers", "1"]
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
def test_a_killed_run_leaves_whole_files_and_resumes(images, tmp_path):
    killed = start_tool(images, tmp_path / "out", KILL_IN_THE_THIRD_JSON)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    copies = tmp_path / "out" / "images"
    finished = {path: path.stat().st_mtime_ns for path in copies.rglob("*.json")}
    assert len(finished) == 2
    assert len(list(copies.rglob("*.tmp"))) == 1, "the file that was being written"
    summary = run(images, tmp_path / "out")
    assert summary.finished_before == 2
    assert all(path.stat().st_mtime_ns == time for path, time in finished.items())
    run(images, tmp_path / "whole")
    assert contents(copies) == contents(tmp_path / "whole" / "images")


@pytest.mark.slow
def test_two_processes_at_once_make_one_result(images, tmp_path):
    processes = [start_tool(images, tmp_path / "out") for _ in range(2)]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    run(images, tmp_path / "alone")
    results = (contents(tmp_path / name / "images") for name in ("out", "alone"))
    assert next(results) == next(results)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def copies(images: Path, output: Path) -> dict[str, str]:
    """Name of each image below its folder, and of its copy."""
    found = find_images(images, output)
    assert all(one.annotation == one.image.with_suffix(".json") for one in found)
    return {
        one.source.relative_to(images).as_posix(): one.image.relative_to(output / COPIES).as_posix()
        for one in found
    }


def test_copies_keep_folders_and_have_names_of_their_own(tmp_path):
    images, output = tmp_path / "in", tmp_path / "out"
    touch(images, "a.jpg", "a.png", "A.JPEG", "b/a.jpg", "c.d.webp", "e.tif", "e.bmp", "notes.txt")
    touch(images, ".hidden.jpg", ".git/x.jpg", "b/a.json")
    found = copies(images, output)
    assert found == {
        "A.JPEG": "A.JPEG",
        "a.jpg": "a_jpg.jpg",
        "a.png": "a_png.png",
        "b/a.jpg": "b/a.jpg",
        "c.d.webp": "c.d.jpg",
        "e.bmp": "e.jpg",
        "e.tif": "e_tif.jpg",
    }


def test_what_is_written_is_not_read(tmp_path):
    touch(tmp_path, "a.jpg", "out/a.jpg", "out/b/c.jpg")
    assert copies(tmp_path, tmp_path / "out") == {"a.jpg": "a.jpg"}


@pytest.mark.parametrize("output", ["in", "."])
def test_the_output_must_not_hold_the_images(tmp_path, output):
    touch(tmp_path / "in", "a.jpg")
    with pytest.raises(ValueError, match="give another folder"):
        find_images(tmp_path / "in", tmp_path / output)


def test_no_images_no_folder_and_a_file_as_output(tmp_path):
    touch(tmp_path, "in/notes.txt", "file")
    with pytest.raises(FileNotFoundError, match=r"holds no image; looked for \.jpg, .*\.bmp"):
        find_images(tmp_path / "in", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        find_images(tmp_path / "nowhere", tmp_path / "out")
    touch(tmp_path / "in", "a.jpg")
    with pytest.raises(ValueError, match="file is a file"):
        find_images(tmp_path / "in", tmp_path / "file")
