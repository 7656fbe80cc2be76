"""Masks out of the tiny CLIP's own features."""

import json
from pathlib import Path

import numpy as np
import pycocotools.mask
import pytest
import torch
from PIL import Image

from pixelclip.modeling.clip_loader import load_clip
from pixelclip.modeling.image_encoder import DenseImageEncoder
from pixelclip.toy.ablations import toy_config
from pixelclip.toy.clip_masks import CLUSTERS_PER_IMAGE, cluster_pixels, write_clip_masks
from pixelclip.toy.dataset import load_toy_scenes_masks
from pixelclip.toy.scenes import make_scene

ROOT = Path(__file__).resolve().parents[2]


def test_the_masks_divide_the_image_and_depend_on_the_seed_only() -> None:
    torch.manual_seed(0)
    encoder = DenseImageEncoder(load_clip("toy", "").visual).eval()
    pixels = make_scene(0, 0).pixels
    masks = cluster_pixels(encoder, pixels, seed=3)
    assert 1 < len(masks) <= CLUSTERS_PER_IMAGE
    assert (sum(found.mask.astype(int) for found in masks) == 1).all()
    again = cluster_pixels(encoder, pixels, seed=3)
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(masks, again, strict=True))


def test_files_are_a_training_set_and_are_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="reproduce_ablations"):
        load_toy_scenes_masks("toy_scenes_clip_masks_train")
    source = tmp_path / "toy_scenes" / "train"
    source.mkdir(parents=True)
    for index in range(2):
        Image.fromarray(make_scene(0, index).pixels).save(source / f"{index}.jpg")
    cfg = toy_config(("MODEL.CLIP.PRETRAINED", ""), "toy_scenes_val", tmp_path / "run", 1)
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
