"""Segment Anything models of tiny size, saved and loaded as real ones."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="the extra 'masks' is not installed")

from pixelclip.mask_generation.segment_anything import SegmentAnythingGenerator
from tests.data.sa1b_files import random_photograph

from .tiny_models import save_tiny_sam, save_tiny_sam_2, save_tiny_sam_hq

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "save",
    [
        save_tiny_sam,
        pytest.param(save_tiny_sam_hq, marks=pytest.mark.slow),
        pytest.param(save_tiny_sam_2, marks=pytest.mark.slow),
    ],
)
def test_each_kind_of_model_finds_masks(save, tmp_path):
    photograph = random_photograph(0, 50, 70)
    generator = SegmentAnythingGenerator(save(tmp_path), CPU)
    found = list(generator.generate(photograph))
    assert found
    for one in found:
        assert one.mask.dtype == np.bool_
        assert one.mask.shape == (50, 70)
        assert one.mask.any()
        assert 0.88 < one.predicted_iou <= 1
        assert one.stability_score == 0.95


@pytest.mark.slow
def test_masks_of_a_large_photograph_have_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr("pixelclip.mask_generation.segment_anything._WORKING_SIDE", 70)
    generator = SegmentAnythingGenerator(save_tiny_sam(tmp_path), CPU)
    found = list(generator.generate(random_photograph(0, 150, 210)))
    assert found
    assert {one.mask.shape for one in found} == {(150, 210)}


def test_what_cannot_be_loaded_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nowhere' could not be loaded as a Segment Anything"):
        SegmentAnythingGenerator(str(tmp_path / "nowhere"), CPU)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="could not be loaded.*preprocessor_config.json"):
        SegmentAnythingGenerator(str(tmp_path), CPU)
