import pickle
import random
from collections import Counter

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter
from torchvision import transforms
from torchvision.transforms import functional as F

from pixelclip.data.augmentation import (
    CropPlan,
    Rectangle,
    StrongAugmentation,
    WeakAugmentation,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    augment_ssd_colors,
    blur,
    cut_out,
    pillow_nearest,
)
from pixelclip.data.images import ImageFile
from tests.data.sa1b_files import image_bytes, random_image

RESIZE = T.ResizeShortestEdge((48, 80), 200, "range")
CROP = T.RandomCrop("absolute", (40, 44))


@pytest.mark.parametrize("flip", ["horizontal", "vertical"])
@pytest.mark.parametrize("size", [(61, 97), (97, 61), (300, 301)])
def test_a_plan_is_what_detectron2_would_draw(size: tuple[int, int], flip: str) -> None:
    weak = WeakAugmentation(RESIZE, CROP, flip, color_augmentation=False)
    is_vertical = flip == "vertical"
    random_flip = T.RandomFlip(horizontal=not is_vertical, vertical=is_vertical)
    augmentations = T.AugmentationList([RESIZE, CROP, random_flip])
    for seed in range(20):
        np.random.seed(seed)
        expected = augmentations(T.AugInput(np.zeros((*size, 3), np.uint8)))
        np.random.seed(seed)
        plan = weak.plan(size)
        mask = np.random.default_rng(seed).integers(0, 2, size).astype(np.uint8)
        rows, columns = plan.source_pixels()
        np.testing.assert_array_equal(mask[rows][:, columns], expected.apply_segmentation(mask))


def test_flips_come_half_the_time_and_only_as_asked() -> None:
    kinds: Counter[tuple[str, bool, bool]] = Counter()
    np.random.seed(0)
    for flip in ("horizontal", "vertical", "none"):
        weak = WeakAugmentation(RESIZE, CROP, flip, color_augmentation=False)
        for _ in range(400):
            plan = weak.plan((60, 60))
            kinds[flip, plan.horizontal_flip, plan.vertical_flip] += 1
    assert kinds["none", False, False] == 400
    assert 150 < kinds["horizontal", True, False] < 250
    assert 150 < kinds["vertical", False, True] < 250
    assert len(kinds) == 5


def test_an_unknown_flip_is_refused() -> None:
    with pytest.raises(ValueError, match=r"INPUT\.RANDOM_FLIP is 'both'.*'vertical'"):
        WeakAugmentation(RESIZE, CROP, "both", color_augmentation=False)


def test_an_image_that_needs_nothing_is_left_as_it_is() -> None:
    pixels = random_image(0, 48, 60)
    weak = WeakAugmentation(T.ResizeShortestEdge(48, 100), None, "none", color_augmentation=False)
    crop, plan = weak(ImageFile(image_bytes(pixels, "PNG")))
    np.testing.assert_array_equal(crop, pixels)
    assert plan.crop == plan.resized == plan.original == (48, 60)


@pytest.mark.parametrize("size", [(61, 63), (60, 60), (63, 62)])
def test_a_reduced_image_gives_the_same_crop_in_place(size: tuple[int, int]) -> None:
    """A shift by half a pixel would show: the image is one steep ramp in both directions."""
    rows, columns = (np.arange(side) for side in size)
    ramp = 4 * np.stack(np.broadcast_arrays(rows[:, None], columns[None], 32), axis=-1)
    data = image_bytes(ramp.astype(np.uint8), "JPEG", quality=100, subsampling=0)
    plan = CropPlan(size, (75, 80), 20, 21, (40, 45), False, False)
    full = cut_out(*ImageFile(data).decode(), plan)
    for min_scale in (0.5, 0.25):
        image, scale = ImageFile(data).decode(min_scale)
        assert scale == min_scale
        difference = cut_out(image, scale, plan).astype(float) - full
        # Half a pixel is two gray levels.
        assert np.abs(difference.mean(axis=(0, 1))).max() < 0.7


def test_crops_may_end_with_the_image() -> None:
    image = random_image(0, 77, 123)
    decoded, scale = ImageFile(image_bytes(image)).decode(0.5)
    plan = CropPlan((77, 123), (640, 1022), 0, 0, (640, 1022), True, True)
    assert cut_out(decoded, scale, plan).shape == (640, 1022, 3)


def test_colors_change_only_where_asked() -> None:
    data = image_bytes(random_image(0, 60, 60), "PNG")
    plain = WeakAugmentation(RESIZE, CROP, "none", color_augmentation=False)
    colored = WeakAugmentation(RESIZE, CROP, "none", color_augmentation=True)
    differs = 0
    for seed in range(20):
        images = []
        for weak in (plain, colored):
            np.random.seed(seed)
            random.seed(seed)
            images.append(weak(ImageFile(data))[0])
        differs += not np.array_equal(*images)
    assert 14 <= differs <= 20  # it is left as it is with probability 1/16


def seeded(seed: int, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Rectangle]:
    random.seed(seed)
    torch.manual_seed(seed)
    return StrongAugmentation()(image)


@pytest.mark.parametrize("size", [(40, 60), (1, 1), (1, 50), (3, 2)])
def test_the_rectangle_is_black_and_inside_and_of_the_right_size(size: tuple[int, int]) -> None:
    image = random_image(0, *size)
    height, width = size
    for seed in range(60):
        strong, (top, left, bottom, right) = seeded(seed, image)
        assert strong.shape == image.shape and strong.dtype == np.uint8
        assert 0 <= top < bottom <= height and 0 <= left < right <= width
        assert max(1, round(0.1 * height)) <= bottom - top <= max(1, round(0.5 * height))
        assert max(1, round(0.1 * width)) <= right - left <= max(1, round(0.5 * width))
        assert not strong[top:bottom, left:right].any()


def test_the_given_image_is_left_as_it_is() -> None:
    image = random_image(0, 30, 30)
    before = image.copy()
    image.setflags(write=False)
    seeded(1, image)
    np.testing.assert_array_equal(image, before)


def test_the_global_generators_decide_everything() -> None:
    image = random_image(0, 30, 30)
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
    image = random_image(0, 10, 10)
    copy = pickle.loads(pickle.dumps(StrongAugmentation()))
    assert copy(image)[0].shape == image.shape


@pytest.mark.parametrize(
    ("change", "reference", "factors"),
    [
        (adjust_brightness, F.adjust_brightness, (0.5, 0.9, 1.5)),
        (adjust_contrast, F.adjust_contrast, (0.5, 1.0, 1.5)),
        (adjust_saturation, F.adjust_saturation, (0.5, 1.1, 1.5)),
    ],
)
def test_brightness_contrast_and_saturation_are_torchvisions(change, reference, factors) -> None:
    image = random_image(3, 80, 90)
    for factor in factors:
        expected = np.asarray(reference(Image.fromarray(image), factor)).astype(int)
        assert np.abs(change(image, factor) - expected).max() <= 2
        assert np.abs(expected - image).mean() > 3 or factor in (1.0, 1.1)


@pytest.mark.parametrize("turn", [-0.25, -0.1, 0.1, 0.25])
def test_hues_turn_as_in_torchvision(turn: float) -> None:
    """OpenCV's hues of 8 bits are nearer to torchvision's in floating point than Pillow's are."""
    image = random_image(3, 80, 90)
    exact = F.adjust_hue(torch.from_numpy(image).permute(2, 0, 1).float() / 255, turn)
    exact_pixels = exact.permute(1, 2, 0).numpy() * 255
    pillow = np.asarray(F.adjust_hue(Image.fromarray(image), turn))
    error = np.abs(adjust_hue(image, turn) - exact_pixels)
    assert error.max() < 10
    assert error.mean() < min(1.0, np.abs(pillow - exact_pixels).mean())


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
def test_blur_is_a_gaussian(sigma: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 70, 3), dtype=np.uint8)
    expected = gaussian_filter(image.astype(float), (sigma, sigma, 0), mode="nearest")
    assert np.abs(blur(image, sigma) - expected).max() < 2.5


def test_draws_are_those_of_torchvisions_transforms() -> None:
    """The same random numbers give nearly the same image as torchvision and Pillow give."""

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
    image = random_image(5, 60, 60)
    for seed in range(40):
        random.seed(seed)
        torch.manual_seed(seed)
        expected = np.asarray(reference(Image.fromarray(image))).astype(int)
        strong, (top, left, bottom, right) = seeded(seed, image)
        visible = np.ones((60, 60), bool)
        visible[top:bottom, left:right] = False
        assert np.abs(strong - expected)[visible].mean() < 3


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


def test_ssd_leaves_the_given_image_as_it_is() -> None:
    image = random_image(0, 30, 30)
    image.setflags(write=False)
    before = image.copy()
    for seed in range(30):
        random.seed(seed)
        augment_ssd_colors(image)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("seed", range(40))
def test_pillow_index_is_that_of_a_resized_image(seed: int) -> None:
    height, width, new_height, new_width = np.random.default_rng(seed).integers(1, 700, 4).tolist()
    image = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    resize = T.ResizeTransform(height, width, new_height, new_width)
    expected = resize.apply_segmentation(image)
    rows, columns = pillow_nearest(height, new_height), pillow_nearest(width, new_width)
    np.testing.assert_array_equal(image[rows][:, columns], expected)
