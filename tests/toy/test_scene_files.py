import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import get_cfg
from PIL import Image

from pixelclip.config import add_pixelclip_config
from pixelclip.data.label_preparation import PreparationReport
from pixelclip.data.mapper import MaskDatasetMapper
from pixelclip.data.sa1b import load_sa1b
from pixelclip.toy import scene_files
from pixelclip.toy.sam_like_masks import make_masks
from pixelclip.toy.scene_files import SPLITS, Split, write_scenes
from pixelclip.toy.scenes import make_scene

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = (Split("train", 11, 3, has_labels=False), Split("test", 13, 2, has_labels=True))


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch):
    monkeypatch.setattr(scene_files, "SPLITS", SMALL)


def contents(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_splits_have_seeds_and_folders_of_their_own():
    assert [split.name for split in SPLITS] == ["train", "val", "test"]
    assert len({split.seed for split in SPLITS}) == 3
    assert [split.has_labels for split in SPLITS] == [False, True, True]


def test_scenes_are_written_with_their_masks_or_labels(tmp_path):
    assert write_scenes(tmp_path, 1) == PreparationReport(5, 0, ())
    assert sorted(contents(tmp_path)) == [
        *(f"toy_scenes/test/images/0000{i}.jpg" for i in range(2)),
        *(f"toy_scenes/test/labels/0000{i}.png" for i in range(2)),
        *(f"toy_scenes/train/0000{i}{suffix}" for i in range(3) for suffix in (".jpg", ".json")),
    ]
    scene = make_scene(13, 1)
    labels = Image.open(tmp_path / "toy_scenes/test/labels/00001.png")
    assert np.array_equal(np.array(labels), scene.labels)
    photograph = np.array(Image.open(tmp_path / "toy_scenes/test/images/00001.jpg"), float)
    assert np.abs(photograph - scene.pixels).mean() < 8, "JPEG's losses"


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
    assert write_scenes(tmp_path, 1) == PreparationReport(0, 5, ())
    for lost in ("toy_scenes/train/00001.json", "toy_scenes/test/images/00000.jpg"):
        (tmp_path / lost).unlink()
    assert write_scenes(tmp_path, 1) == PreparationReport(2, 3, ())
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
    monkeypatch.setattr(scene_files, "SPLITS", SMALL)
    write_scenes(tmp_path / "half", 1)
    assert contents(tmp_path / "half") == whole


@pytest.mark.slow
def test_a_killed_run_is_continued_by_several_processes(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from pixelclip.toy import scene_files\n"
        "write, calls = scene_files._write_image, []\n"
        "def write_until_killed(*arguments, **options):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 3:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    write(*arguments, **options)\n"
        "scene_files._write_image = write_until_killed\n"
        "scene_files.write_scenes(Path(sys.argv[1]), 1)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "killed")],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL
    left = contents(tmp_path / "killed")
    assert len(left) == 5, "two scenes, and the annotation of the third"
    report = write_scenes(tmp_path / "killed", 2)
    write_scenes(tmp_path / "whole", 1)
    whole = contents(tmp_path / "whole")
    assert all(whole[name] == content for name, content in left.items())
    assert report == PreparationReport(3, 2, ())
    assert contents(tmp_path / "killed") == whole
