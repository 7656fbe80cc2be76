import random
from collections import Counter

import numpy as np
import pytest
from detectron2.data import transforms as T

from pixelclip.data.image_reading import Photograph
from pixelclip.data.weak_augmentation import CropPlan, WeakAugmentation, cut_out
from tests.data.sa1b_files import image_bytes, random_photograph

RESIZE = T.ResizeShortestEdge((48, 80), 200, "range")
CROP = T.RandomCrop("absolute", (40, 44))


@pytest.mark.parametrize("size", [(61, 97), (97, 61), (300, 301)])
def test_a_plan_is_what_detectron2_would_draw(size: tuple[int, int]) -> None:
    weak = WeakAugmentation(RESIZE, CROP, "horizontal", changes_colors=False)
    augmentations = T.AugmentationList([RESIZE, CROP, T.RandomFlip()])
    for seed in range(20):
        np.random.seed(seed)
        expected = augmentations(T.AugInput(np.zeros((*size, 3), np.uint8)))
        np.random.seed(seed)
        plan = weak.plan(size)
        mask = np.random.default_rng(seed).integers(0, 2, size).astype(np.uint8)
        np.testing.assert_array_equal(
            plan.to_transforms().apply_segmentation(mask), expected.apply_segmentation(mask)
        )


def test_flips_come_half_the_time_and_only_as_asked() -> None:
    kinds: Counter[tuple[str, bool, bool]] = Counter()
    np.random.seed(0)
    for flip in ("horizontal", "vertical", "none"):
        weak = WeakAugmentation(RESIZE, CROP, flip, changes_colors=False)
        for _ in range(400):
            plan = weak.plan((60, 60))
            kinds[flip, plan.is_mirrored, plan.is_upside_down] += 1
    assert kinds["none", False, False] == 400
    assert 150 < kinds["horizontal", True, False] < 250
    assert 150 < kinds["vertical", False, True] < 250
    assert len(kinds) == 5


def test_an_unknown_flip_is_refused() -> None:
    with pytest.raises(ValueError, match=r"INPUT\.RANDOM_FLIP is 'both'.*'vertical'"):
        WeakAugmentation(RESIZE, CROP, "both", changes_colors=False)


def test_a_picture_that_needs_nothing_is_left_as_it_is() -> None:
    pixels = random_photograph(0, 48, 60)
    weak = WeakAugmentation(T.ResizeShortestEdge(48, 100), None, "none", changes_colors=False)
    crop, plan = weak(Photograph(image_bytes(pixels, "PNG")))
    np.testing.assert_array_equal(crop, pixels)
    assert plan.crop == plan.resized == plan.photograph == (48, 60)


@pytest.mark.parametrize("size", [(61, 63), (60, 60), (63, 62)])
def test_a_reduced_photograph_gives_the_same_crop_in_place(size: tuple[int, int]) -> None:
    """A shift by half a pixel would show: the picture is one steep ramp in both directions."""
    rows, columns = (np.arange(side) for side in size)
    ramp = 4 * np.stack(np.broadcast_arrays(rows[:, None], columns[None], 32), axis=-1)
    data = image_bytes(ramp.astype(np.uint8), "JPEG", quality=100, subsampling=0)
    plan = CropPlan(size, (75, 80), 20, 21, (40, 45), False, False)
    full = cut_out(*Photograph(data).decode(), plan)
    for min_scale in (0.5, 0.25):
        image, scale = Photograph(data).decode(min_scale)
        assert scale == min_scale
        difference = cut_out(image, scale, plan).astype(float) - full
        # Half a pixel is two grey levels.
        assert np.abs(difference.mean(axis=(0, 1))).max() < 0.7


def test_crops_may_end_with_the_photograph() -> None:
    image = random_photograph(0, 77, 123)
    photograph = Photograph(image_bytes(image))
    decoded, scale = photograph.decode(0.5)
    plan = CropPlan((77, 123), (640, 1022), 0, 0, (640, 1022), True, True)
    assert cut_out(decoded, scale, plan).shape == (640, 1022, 3)


def test_colours_change_only_where_asked() -> None:
    data = image_bytes(random_photograph(0, 60, 60), "PNG")
    plain = WeakAugmentation(RESIZE, CROP, "none", changes_colors=False)
    coloured = WeakAugmentation(RESIZE, CROP, "none", changes_colors=True)
    differs = 0
    for seed in range(20):
        images = []
        for weak in (plain, coloured):
            np.random.seed(seed)
            random.seed(seed)
            images.append(weak(Photograph(data))[0])
        differs += not np.array_equal(*images)
    assert 14 <= differs <= 20  # it is left as it is with probability 1/16
