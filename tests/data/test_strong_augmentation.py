import pickle
import random

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pixelclip.data.strong_augmentation import Rectangle, StrongAugmentation
from tests.data.sa1b_files import random_photograph


def seeded(seed: int, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Rectangle]:
    random.seed(seed)
    torch.manual_seed(seed)
    return StrongAugmentation()(image)


@pytest.mark.parametrize("size", [(40, 60), (1, 1), (1, 50), (3, 2)])
def test_the_rectangle_is_black_and_inside_and_of_the_right_size(size: tuple[int, int]) -> None:
    image = random_photograph(0, *size)
    height, width = size
    for seed in range(60):
        strong, (top, left, bottom, right) = seeded(seed, image)
        assert strong.shape == image.shape and strong.dtype == np.uint8
        assert 0 <= top < bottom <= height and 0 <= left < right <= width
        assert max(1, round(0.1 * height)) <= bottom - top <= max(1, round(0.5 * height))
        assert max(1, round(0.1 * width)) <= right - left <= max(1, round(0.5 * width))
        assert not strong[top:bottom, left:right].any()


def test_the_given_image_is_left_as_it_is() -> None:
    image = random_photograph(0, 30, 30)
    before = image.copy()
    image.setflags(write=False)
    seeded(1, image)
    np.testing.assert_array_equal(image, before)


def test_the_global_generators_decide_everything() -> None:
    image = random_photograph(0, 30, 30)
    first, second, other = seeded(1, image), seeded(1, image), seeded(2, image)
    np.testing.assert_array_equal(first[0], second[0])
    assert first[1] == second[1] != other[1]


def test_each_change_comes_with_its_probability() -> None:
    noise = np.random.default_rng(0).integers(60, 190, (24, 24, 3), dtype=np.uint8)
    grays, unchanged, runs = 0, 0, 600
    random.seed(0)
    torch.manual_seed(0)
    augment = StrongAugmentation()
    for _ in range(runs):
        strong, (top, left, bottom, right) = augment(noise)
        visible = np.ones((24, 24), bool)
        visible[top:bottom, left:right] = False
        pixels = strong[visible]
        grays += bool((pixels == pixels[:, :1]).all())
        unchanged += bool((pixels == noise[visible]).all())
    assert abs(grays / runs - 0.2) < 0.05
    # No jitter, no grayscale, no blur.
    assert abs(unchanged / runs - 0.2 * 0.8 * 0.5) < 0.04


def test_blur_smooths() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    roughness = []
    for seed in range(60):
        strong, (top, left, bottom, right) = seeded(seed, noise)
        column = 0 if left > 1 else 30
        edges = np.diff(strong[:, column : column + 2].astype(float).mean(axis=2), axis=1)
        if right < 30 or left > 1:
            roughness.append(np.abs(edges).mean())
    # About half of them are blurred, some by so little that it cannot be told.
    assert 0.2 < np.mean(np.array(roughness) < 15) < 0.8


def test_it_can_be_sent_to_a_spawned_worker() -> None:
    image = random_photograph(0, 10, 10)
    copy = pickle.loads(pickle.dumps(StrongAugmentation()))
    assert copy(image)[0].shape == image.shape
