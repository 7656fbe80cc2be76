"""The drawn scenes as files and as registered data sets."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cli
import numpy as np
import pycocotools.mask
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from pixelclip.config import add_pixelclip_config
from pixelclip.data.mapper import MaskDatasetMapper
from pixelclip.data.sa1b import load_sa1b
from pixelclip.modeling.clip_loader import load_clip
from pixelclip.modeling.image_encoder import DenseImageEncoder
from pixelclip.toy import datasets
from pixelclip.toy.ablations import toy_config
from pixelclip.toy.datasets import (
    CLUSTERS_PER_IMAGE,
    SPLITS,
    Split,
    cluster_pixels,
    load_toy_scenes_masks,
    write_clip_masks,
    write_scenes,
)
from pixelclip.toy.scenes import CLASS_NAMES, make_masks, make_scene

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = (Split("train", 11, 3, has_labels=False), Split("test", 13, 2, has_labels=True))
NAMES = ("toy_scenes_masks_train", "toy_scenes_val", "toy_scenes_test")


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch):
    monkeypatch.setattr(datasets, "SPLITS", SMALL)


def contents(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_splits_have_different_seeds_and_folders():
    assert [split.name for split in SPLITS] == ["train", "val", "test"]
    assert len({split.seed for split in SPLITS}) == 3
    assert [split.has_labels for split in SPLITS] == [False, True, True]


@pytest.mark.parametrize("split", SPLITS[1:], ids=lambda split: split.name)
def test_labeled_splits_are_registered_benchmarks(split):
    metadata = MetadataCatalog.get(f"toy_scenes_{split.name}")
    assert metadata.stuff_classes == list(CLASS_NAMES)
    assert metadata.evaluator_type == "sem_seg"
    assert metadata.benchmark.num_images == (split.count,)


def test_scenes_are_written_with_their_masks_or_labels(tmp_path):
    assert write_scenes(tmp_path, 1) == (5, 0)
    assert sorted(contents(tmp_path)) == [
        *(f"toy_scenes/test/images/0000{i}.jpg" for i in range(2)),
        *(f"toy_scenes/test/labels/0000{i}.png" for i in range(2)),
        *(f"toy_scenes/train/0000{i}{suffix}" for i in range(3) for suffix in (".jpg", ".json")),
    ]
    scene = make_scene(13, 1)
    labels = Image.open(tmp_path / "toy_scenes/test/labels/00001.png")
    assert np.array_equal(np.array(labels), scene.labels)
    image = np.array(Image.open(tmp_path / "toy_scenes/test/images/00001.jpg"), float)
    assert np.abs(image - scene.pixels).mean() < 8, "JPEG's losses"


def test_training_scenes_are_read_by_the_mapper(tmp_path):
    write_scenes(tmp_path, 1)
    cfg = get_cfg()
    add_pixelclip_config(cfg)
    cfg.INPUT.MIN_SIZE_TRAIN = (96,)
    cfg.MODEL.PIXELCLIP.MASK_RESOLUTION = (96, 96)
    cfg.INPUT.RANDOM_FLIP = "none"
    mapper = MaskDatasetMapper(cfg, is_train=True)
    for index, record in enumerate(load_sa1b(tmp_path / "toy_scenes" / "train")):
        masks = mapper(record)["masks"].numpy()
        expected = np.stack(make_masks(11, index, make_scene(11, index)))
        # The strong augmentation's rectangle takes pixels, and what they were all of, away.
        assert 0 < len(masks) <= len(expected)
        inside = [(~mask[None] | expected).all(axis=(1, 2)) for mask in masks]
        assert np.stack(inside).any(axis=1).all()
        assert masks.sum() > 0.5 * expected.sum()


def test_only_missing_scenes_are_drawn(tmp_path):
    write_scenes(tmp_path, 1)
    before = contents(tmp_path)
    assert write_scenes(tmp_path, 1) == (0, 5)
    for lost in ("toy_scenes/train/00001.json", "toy_scenes/test/images/00000.jpg"):
        (tmp_path / lost).unlink()
    assert write_scenes(tmp_path, 1) == (2, 3)
    assert contents(tmp_path) == before


def test_a_full_disk_leaves_whole_files_only(tmp_path, monkeypatch):
    write_scenes(tmp_path / "whole", 1)
    save = Image.Image.save

    def fill_disk(image, file, kind, **options):
        if len(contents(tmp_path / "half")) > 4:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        save(image, file, kind, **options)

    monkeypatch.setattr(Image.Image, "save", fill_disk)
    with pytest.raises(OSError, match="No space"):
        write_scenes(tmp_path / "half", 1)
    whole = contents(tmp_path / "whole")
    left = contents(tmp_path / "half")
    assert 0 < len(left) < len(whole)
    assert all(whole[name] == content for name, content in left.items())
    monkeypatch.undo()
    monkeypatch.setattr(datasets, "SPLITS", SMALL)
    write_scenes(tmp_path / "half", 1)
    assert contents(tmp_path / "half") == whole


@pytest.mark.slow
def test_a_killed_run_is_continued_by_several_processes(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from pixelclip.toy import datasets\n"
        "write, calls = datasets._write_image, []\n"
        "def write_until_killed(*arguments, **options):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 3:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    write(*arguments, **options)\n"
        "datasets._write_image = write_until_killed\n"
        "datasets.write_scenes(Path(sys.argv[1]), 1)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "killed")],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL
    left = contents(tmp_path / "killed")
    assert len(left) == 5, "two scenes, and the annotation of the third"
    counts = write_scenes(tmp_path / "killed", 2)
    write_scenes(tmp_path / "whole", 1)
    whole = contents(tmp_path / "whole")
    assert all(whole[name] == content for name, content in left.items())
    assert counts == (3, 2)
    assert contents(tmp_path / "killed") == whole


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return tmp_path


def prepare(*options):
    """Run the prepare command, as the data sets' errors tell a user to."""
    return cli.main(["datasets", "prepare", "toy_scenes", *options])


def test_drawn_scenes_are_data_sets(root, monkeypatch, capsys):
    counts = zip(("train", "val", "test"), (2, 3, 4), strict=True)
    splits = [Split(name, 5, count, name != "train") for name, count in counts]
    monkeypatch.setattr(datasets, "SPLITS", splits)
    assert prepare("--workers", "1") == 0
    assert "9 files written, 0 were finished before" in capsys.readouterr().out
    train, val, test = (DatasetCatalog.get(name) for name in NAMES)
    assert (len(train), len(val), len(test)) == (2, 3, 4)
    assert len(json.loads(Path(train[0]["annotation_file_name"]).read_text())["annotations"]) > 1
    for record in (*val, *test):
        assert Path(record["file_name"]).stem == Path(record["sem_seg_file_name"]).stem
    assert not {r["file_name"] for r in val} & {r["file_name"] for r in test}


@pytest.mark.parametrize("name", NAMES)
def test_scenes_that_are_not_drawn_are_an_error_with_the_command(root, name):
    with pytest.raises(FileNotFoundError) as caught:
        DatasetCatalog.get(name)
    assert f"datasets prepare toy_scenes --root {root}" in str(caught.value)


def test_clip_masks_divide_the_image_and_depend_on_the_seed_only():
    torch.manual_seed(0)
    encoder = DenseImageEncoder(load_clip("toy", "").visual).eval()
    pixels = make_scene(0, 0).pixels
    masks = cluster_pixels(encoder, pixels, seed=3)
    assert 1 < len(masks) <= CLUSTERS_PER_IMAGE
    assert (sum(found.mask.astype(int) for found in masks) == 1).all()
    again = cluster_pixels(encoder, pixels, seed=3)
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(masks, again, strict=True))


def test_scenes_with_clip_masks_are_a_training_set_and_are_written_once(root):
    with pytest.raises(FileNotFoundError, match="pixelclip ablations"):
        load_toy_scenes_masks("toy_scenes_clip_masks_train")
    source = root / "toy_scenes" / "train"
    source.mkdir(parents=True)
    for index in range(2):
        Image.fromarray(make_scene(0, index).pixels).save(source / f"{index}.jpg")
    cfg = toy_config(("MODEL.CLIP.PRETRAINED", ""), "toy_scenes_val", root / "run", 1)
    torch.manual_seed(0)
    folder = write_clip_masks(cfg)
    records = load_toy_scenes_masks("toy_scenes_clip_masks_train")
    assert [record["image_id"] for record in records] == ["0", "1"]
    annotations = json.loads((folder / "0.json").read_text())["annotations"]
    areas = [pycocotools.mask.area(annotation["segmentation"]) for annotation in annotations]
    assert sum(areas) == 96 * 96
    before = (folder / "1.json").stat().st_mtime_ns
    (folder / "0.jpg").unlink()  # as if a run had been killed between the two files of a scene
    write_clip_masks(cfg)
    assert (folder / "0.jpg").exists()
    assert (folder / "1.json").stat().st_mtime_ns == before
