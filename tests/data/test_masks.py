import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pixelclip.data.masks import (
    MaskIndexMap,
    MaskOverlaps,
    pack_masks,
    pack_sample,
    torch_nearest,
    unpack_masks,
)
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


def test_a_piece_has_the_pixels_of_the_same_masks():
    masks = random_masks(5, 6, 30, 40).astype(bool)
    masks[1] = masks[0]
    masks[:, :4] = False
    overlaps = MaskOverlaps((30, 40))
    for mask in masks:
        overlaps.add(mask)
    pieces, membership = overlaps.divide()
    assert membership.dtype == bool
    assert len(np.unique(membership, axis=0)) == len(membership) == pieces.max() + 1
    assert (pieces[:4] == -1).all()
    for row, column in np.ndindex(30, 40):
        piece, having = pieces[row, column], masks[:, row, column]
        assert np.array_equal(membership[piece], having) if having.any() else piece == -1


@pytest.mark.parametrize("masks", [np.zeros((0, 3, 4), bool), np.ones((2, 3, 4), bool)])
def test_no_mask_and_no_gap_are_divided_too(masks):
    overlaps = MaskOverlaps((3, 4))
    for mask in masks:
        overlaps.add(mask)
    pieces, membership = overlaps.divide()
    assert membership.shape == (min(1, len(masks)), len(masks))
    assert (pieces == (0 if len(masks) else -1)).all()


@pytest.mark.parametrize("width", [1, 7, 8, 33])
def test_packed_masks_are_the_masks(width):
    generator = torch.Generator().manual_seed(width)
    masks = torch.rand(3, 5, width, generator=generator) > 0.5
    bits = pack_masks(masks)
    assert bits.shape == (3, 5, -(-width // 8)) and bits.dtype == torch.uint8
    assert torch.equal(unpack_masks(bits, width), masks)
    assert unpack_masks(pack_masks(masks[:0]), width).shape == (0, 5, width)


def test_a_packed_sample_has_the_masks_of_several_pixels():
    masks = torch.zeros(4, 3, 9, dtype=torch.bool)
    masks[1, 0, 2] = masks[2, 1:, 4] = masks[3] = True
    packed = pack_sample({"image_id": "a", "masks": masks})
    assert torch.equal(unpack_masks(packed.pop("packed_masks"), 9), masks[2:])
    assert packed == {"image_id": "a"}
    assert pack_sample({"mask_seed": 3}) == {"mask_seed": 3}  # DINO makes the masks
