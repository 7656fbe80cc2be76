import pickle
import random

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter
from torchvision import transforms
from torchvision.transforms import functional as F

from pixelclip.data.strong_augmentation import (
    Rectangle,
    StrongAugmentation,
    blur,
    change_brightness,
    change_contrast,
    change_hue,
    change_saturation,
)
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


@pytest.mark.parametrize(
    ("change", "reference", "factors"),
    [
        (change_brightness, F.adjust_brightness, (0.5, 0.9, 1.5)),
        (change_contrast, F.adjust_contrast, (0.5, 1.0, 1.5)),
        (change_saturation, F.adjust_saturation, (0.5, 1.1, 1.5)),
    ],
)
def test_brightness_contrast_and_saturation_are_torchvisions(change, reference, factors) -> None:
    image = random_photograph(3, 80, 90)
    for factor in factors:
        expected = np.asarray(reference(Image.fromarray(image), factor)).astype(int)
        assert np.abs(change(image, factor) - expected).max() <= 2
        assert np.abs(expected - image).mean() > 3 or factor in (1.0, 1.1)


@pytest.mark.parametrize("turn", [-0.25, -0.1, 0.1, 0.25])
def test_hues_turn_as_in_torchvision(turn: float) -> None:
    """OpenCV's hues of 8 bits are nearer to torchvision's in floating point than Pillow's are."""
    image = random_photograph(3, 80, 90)
    exact = F.adjust_hue(torch.from_numpy(image).permute(2, 0, 1).float() / 255, turn)
    exact_pixels = exact.permute(1, 2, 0).numpy() * 255
    pillow = np.asarray(F.adjust_hue(Image.fromarray(image), turn))
    error = np.abs(change_hue(image, turn) - exact_pixels)
    assert error.max() < 10
    assert error.mean() < min(1.0, np.abs(pillow - exact_pixels).mean())


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
def test_blur_is_a_gaussian(sigma: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 70, 3), dtype=np.uint8)
    expected = gaussian_filter(image.astype(float), (sigma, sigma, 0), mode="nearest")
    assert np.abs(blur(image, sigma) - expected).max() < 2.5


def test_draws_are_those_of_torchvisions_transforms() -> None:
    """The same random numbers give nearly the same picture as torchvision and Pillow give."""

    def blur_at_random(image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))

    jitter = transforms.ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25)
    reference = transforms.Compose(
        [
            transforms.RandomApply([jitter], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.RandomApply([transforms.Lambda(blur_at_random)], p=0.5),
        ]
    )
    image = random_photograph(5, 60, 60)
    for seed in range(40):
        random.seed(seed)
        torch.manual_seed(seed)
        expected = np.asarray(reference(Image.fromarray(image))).astype(int)
        strong, (top, left, bottom, right) = seeded(seed, image)
        visible = np.ones((60, 60), bool)
        visible[top:bottom, left:right] = False
        assert np.abs(strong - expected)[visible].mean() < 3
