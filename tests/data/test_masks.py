import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pixelclip.data.masks import MaskIndexMap, torch_nearest
from tests.data.sa1b_files import random_masks


@pytest.mark.parametrize("seed", range(40))
def test_torch_index_is_that_of_interpolate(seed: int) -> None:
    height, width, new_height, new_width = np.random.default_rng(seed).integers(1, 700, 4).tolist()
    image = torch.randint(0, 256, (1, 1, height, width), generator=torch.manual_seed(seed))
    rows, columns = torch_nearest(height, new_height), torch_nearest(width, new_width)
    for dtype in (torch.uint8, torch.float32):
        resized = F.interpolate(image.to(dtype), (new_height, new_width), mode="nearest")
        assert torch.equal(image[0, 0][rows][:, columns].to(dtype), resized[0, 0])


def test_each_pixel_belongs_to_the_smallest_mask_that_has_it():
    masks = random_masks(4, 8, 30, 40).astype(bool)
    index_map = MaskIndexMap((30, 40))
    for mask in masks:
        index_map.add(mask)
    assert index_map.count == 8
    areas = masks.sum((1, 2))
    for row in range(30):
        for column in range(40):
            having = np.flatnonzero(masks[:, row, column])
            expected = having[areas[having].argmin()] if len(having) else -1
            assert index_map.index_map[row, column] == expected


def test_of_equal_ones_the_first_has_the_pixels():
    index_map = MaskIndexMap((2, 3))
    assert (index_map.index_map == -1).all()
    index_map.add(np.array([[True, True, False]] * 2))
    index_map.add(np.array([[False, True, True]] * 2))
    assert index_map.index_map.tolist() == [[0, 0, 1]] * 2
