"""Every configuration builds, trains two iterations and evaluates, at tiny size."""

from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg

from pixelclip import add_pixelclip_config
from pixelclip.engine import Trainer

from .conftest import (
    SMALL_TRAINING,
    register_test_set,
    unregister_test_set,
    write_images,
)

FOLDER = Path(__file__).resolve().parents[1] / "configs"
# Base files are for others to build on; configs/datasets describes data sets.
CONFIGS = sorted(
    path
    for path in FOLDER.rglob("*.yaml")
    if not path.stem.startswith("Base-") and path.parent.name != "datasets"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_images(folder / "images")
    register_test_set(folder / "test_set", "images_for_all_configs")
    yield folder
    unregister_test_set("images_for_all_configs")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(FOLDER).with_suffix("")))
def test_builds_trains_and_evaluates(path, data, tmp_path, monkeypatch, request):
    cfg = get_cfg()
    add_pixelclip_config(cfg)
    cfg.merge_from_file(str(path))
    kind = "convnext" if "convnext" in cfg.MODEL.CLIP.ARCH else "vit"
    monkeypatch.setenv("SAM_DATASETS", str(data / "images"))
    cfg.merge_from_list(
        [
            *("MODEL.DEVICE", "cpu", "MODEL.CLIP.PRETRAINED", "", "OUTPUT_DIR", str(tmp_path)),
            *("MODEL.CLIP.ARCH", request.getfixturevalue(f"tiny_{kind}_json")),
            *("MODEL.PIXELCLIP.DINO.MODEL", "test_vit", "MODEL.PIXELCLIP.DINO.WEIGHTS", ""),
            *("MODEL.CLIP.RESOLUTION", (64, 64), "MODEL.PIXELCLIP.MASK_RESOLUTION", (32, 32)),
            *("DATASETS.TRAIN", ("sa1b_train",), "DATASETS.TEST", ("images_for_all_configs",)),
            *SMALL_TRAINING,
            *("SOLVER.MAX_ITER", 2, "MODEL.PIXELCLIP.PROMPT_INITIALIZATION_MASKS", 50),
        ]
    )
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    before = {name: p.clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    parameters = dict(trainer.model.named_parameters())
    moved = {name for name, old in before.items() if (parameters[name] != old).any()}
    assert "mask_decoder.proj.weight" in moved
    assert ("class_prompts.tokens" in moved) == _prompts_change(cfg)
    assert 0 <= trainer._last_eval_results["sem_seg"]["mIoU"] <= 100


def _prompts_change(cfg):
    node = cfg.MODEL.PIXELCLIP
    if node.PROMPT_INITIALIZATION == "kmeans":
        return True
    is_learning = node.CLUSTER_EMBEDDINGS == "prompts" and cfg.SOLVER.PROMPT_MULTIPLIER > 0
    return is_learning and node.ASSIGNMENT != "none"
