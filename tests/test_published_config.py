"""The published configurations, key by key, and what they make of an image."""

from pathlib import Path

import pytest
from detectron2.config import CfgNode, get_cfg

from pixelclip import add_pixelclip_config
from pixelclip.data.mask_dataset_mapper import MaskDatasetMapper

REPOSITORY = Path(__file__).resolve().parents[1]


def load(name: str) -> CfgNode:
    cfg = get_cfg()
    add_pixelclip_config(cfg)
    cfg.merge_from_file(str(REPOSITORY / "configs" / name))
    return cfg


@pytest.mark.parametrize("size", [(1500, 2250), (2250, 1500)])
def test_the_longest_side_of_a_training_image_is_limited(size):
    augmentation = MaskDatasetMapper(load("pixelclip_vitb16.yaml")).weak_augmentation
    plan = augmentation.plan(size)
    assert sorted(plan.resized) == [889, 1333]
    assert plan.crop == (640, 640)
