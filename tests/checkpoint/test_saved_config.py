"""What a checkpoint's config holds, and what is said where there is none."""

import pytest
import torch
import yaml
from detectron2.config import get_cfg

from pixelclip.checkpoint.saved_config import dump_config, merge_saved_config
from pixelclip.config import add_pixelclip_config
from pixelclip.engine.setup import load_config


def new_config():
    cfg = get_cfg()
    add_pixelclip_config(cfg)
    return cfg


def save(path, config, **weights):
    torch.save({"model": {name: torch.zeros(1) for name in ("a", *weights)}, **config}, path)
    return str(path)


@pytest.mark.parametrize("file", ["configs/pixelclip_vitb16.yaml", "configs/demo/toy.yaml"])
def test_what_is_saved_is_read_back(file, tmp_path):
    cfg, merged = load_config(file), new_config()
    merge_saved_config(merged, save(tmp_path / "x.pth", {"config": dump_config(cfg)}))
    cfg.MODEL.DEVICE, cfg.OUTPUT_DIR = merged.MODEL.DEVICE, merged.OUTPUT_DIR
    assert merged.dump() == cfg.dump()


def test_only_changes_are_saved_and_nothing_of_the_machine():
    cfg = new_config()
    cfg.MODEL.CLIP.RESOLUTION = (64, 32)
    cfg.MODEL.DEVICE, cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS = "cpu", "/data/run", "/data/start.pth"
    cfg.OF_ANOTHER_PROJECT = 3
    assert yaml.safe_load(dump_config(cfg)) == {"MODEL": {"CLIP": {"RESOLUTION": [64, 32]}}}


@pytest.mark.parametrize(
    ("layer", "shape", "architecture"),
    [
        ("sem_seg_head.predictor.clip_model.visual.conv1.weight", (768, 3, 16, 16), "ViT-B-16"),
        ("image_encoder.visual.trunk.stem.0.weight", (128, 3, 4, 4), "convnext_base"),
    ],
)
def test_the_first_layer_tells_the_published_models(layer, shape, architecture, tmp_path):
    torch.save({"model": {layer: torch.zeros(shape)}}, tmp_path / "x.pth")
    cfg = new_config()
    merge_saved_config(cfg, str(tmp_path / "x.pth"))
    assert cfg.MODEL.CLIP.ARCH.startswith(architecture)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({}, "carries no config"),
        ({"config": "MODEL: ["}, "cannot be used"),
        ({"config": "NO_SUCH_KEY: 1"}, "cannot be used.*NO_SUCH_KEY"),
        ({"config": 3}, "cannot be used"),
        ({"config": "!!python/object/apply:os.system [ls]"}, "cannot be used"),
    ],
)
def test_a_config_that_cannot_be_used_asks_for_one(config, problem, tmp_path):
    with pytest.raises(ValueError, match=rf"(?s){problem}.*add --config-file"):
        merge_saved_config(new_config(), save(tmp_path / "x.pth", config))
