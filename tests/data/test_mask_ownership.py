import numpy as np

from pixelclip.data.mask_ownership import MaskOwnership
from tests.data.sa1b_files import random_masks


def test_each_pixel_belongs_to_the_smallest_mask_that_has_it():
    masks = random_masks(4, 8, 30, 40).astype(bool)
    ownership = MaskOwnership((30, 40))
    for mask in masks:
        ownership.add(mask)
    assert ownership.count == 8
    areas = masks.sum((1, 2))
    for row in range(30):
        for column in range(40):
            having = np.flatnonzero(masks[:, row, column])
            expected = having[areas[having].argmin()] if len(having) else -1
            assert ownership.owner[row, column] == expected


def test_of_equal_ones_the_first_owns_and_none_owns_nothing():
    ownership = MaskOwnership((2, 3))
    assert (ownership.owner == -1).all()
    ownership.add(np.array([[True, True, False]] * 2))
    ownership.add(np.array([[False, True, True]] * 2))
    assert ownership.owner.tolist() == [[0, 0, 1]] * 2
