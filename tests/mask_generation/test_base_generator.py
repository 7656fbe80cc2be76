import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from pixelclip.mask_generation.base_generator import BaseGenerator, enlarge_mask, shrink_image
from pixelclip.modeling.inference_masks import MASK_GENERATORS, build_mask_generator

SIDES = st.integers(1, 40)


@pytest.mark.parametrize("name", MASK_GENERATORS)
def test_every_generator_is_registered_under_its_name_and_built_without_loading_it(name):
    generator = build_mask_generator(name)
    assert isinstance(generator, BaseGenerator)
    assert bool(generator.default_model) == (name != "superpixels")
    assert generator.settings == {"name": name, "model": "", "weights": "", "num_clusters": 16}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("sma",), "'sma' is unknown; choose one of superpixels, sam"),
        (("superpixels", "facebook/sam"), "superpixels need no model"),
        (("sam", "", "weights.pth"), "sam takes no weights file"),
        (("dino", "no_such_vit"), "timm has no model 'no_such_vit'"),
        (("dino", "", "nowhere.pth"), "'nowhere.pth' of .* are not"),
        (("dino", "", "", 0), "0 clusters"),
    ],
)
def test_what_cannot_be_built_is_refused_before_work(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        build_mask_generator(*arguments)


@pytest.mark.parametrize("name", ["sam", "sam_hq", "sam2"])
def test_a_missing_package_names_the_extra(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    problem = r'transformers.*pip install "pixelclip\[masks\]"'
    with pytest.raises(ModuleNotFoundError, match=problem):
        build_mask_generator(name)
    build_mask_generator("superpixels")


@given(SIDES, SIDES, st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_images_shrink_to_the_longest_side_and_never_grow(height, width, longest):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    small = shrink_image(image, longest)
    if longest >= max(height, width):
        assert small is image
        return
    assert max(small.shape[:2]) == longest
    assert min(small.shape[:2]) == max(1, round(min(height, width) * longest / max(height, width)))


@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_enlarging_is_nearest_neighbor_and_loses_no_pixel(height, width, more, wider, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.3
    size = (height + more, width + wider)
    large = enlarge_mask(mask, size)
    expected = F.interpolate(torch.from_numpy(mask)[None, None].float(), size, mode="nearest")
    assert np.array_equal(large, expected[0, 0].bool().numpy())
    assert large.flags.f_contiguous
    assert large.any() == mask.any()
