import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from pixelclip.mask_generation.working_size import enlarge_mask, shrink_image

SIDES = st.integers(1, 40)


@given(SIDES, SIDES, st.integers(1, 50))
@settings(max_examples=60)
def test_images_shrink_to_the_longest_side_and_never_grow(height, width, longest):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    small = shrink_image(image, longest)
    if longest >= max(height, width):
        assert small is image
        return
    assert max(small.shape[:2]) == longest
    assert min(small.shape[:2]) == max(1, round(min(height, width) * longest / max(height, width)))


@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_enlarging_is_nearest_neighbour_and_loses_no_pixel(height, width, more, wider, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.3
    size = (height + more, width + wider)
    large = enlarge_mask(mask, size)
    expected = F.interpolate(torch.from_numpy(mask)[None, None].float(), size, mode="nearest")
    assert np.array_equal(large, expected[0, 0].bool().numpy())
    assert large.flags.f_contiguous
    assert large.any() == mask.any()
