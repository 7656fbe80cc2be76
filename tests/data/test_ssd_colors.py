import random

import numpy as np
import pytest
from detectron2.projects.point_rend import ColorAugSSDTransform

from pixelclip.data.ssd_colors import augment_ssd_colors
from tests.data.sa1b_files import random_photograph


@pytest.mark.parametrize("size", [(40, 60), (1, 1), (7, 131)])
def test_equals_detectron2s_transform(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    transform = ColorAugSSDTransform(img_format="RGB")
    for seed in range(150):
        random.seed(seed)
        expected, next_draw = transform.apply_image(image), random.random()
        random.seed(seed)
        np.testing.assert_array_equal(augment_ssd_colors(image), expected)
        assert random.random() == next_draw


def test_the_given_image_is_left_as_it_is() -> None:
    image = random_photograph(0, 30, 30)
    image.setflags(write=False)
    before = image.copy()
    for seed in range(30):
        random.seed(seed)
        augment_ssd_colors(image)
    np.testing.assert_array_equal(image, before)
