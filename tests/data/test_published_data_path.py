"""The data path of the published training, stage by stage, on fixed draws.

Each expectation is the published rule, written out. What is drawn is compared with its distribution
by so many seeded draws that the bounds lie four standard deviations away and that a constant that
is 10% off falls outside.
"""

import json
import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from numpy.typing import ArrayLike, NDArray

from pixelclip import add_pixelclip_config
from pixelclip.data import augmentation
from pixelclip.data.augmentation import StrongAugmentation, augment_ssd_colors
from pixelclip.data.mapper import MaskDatasetMapper
from pixelclip.data.sa1b import load_sa1b
from pixelclip.modeling.targets import gather_training_masks
from pixelclip.utils.installation import find_config
from tests.data.sa1b_files import encode, image_bytes, write_files

CROP = 640
# (height, width) of an image -> of the resized one: short side 1024, long side at most 1333.
RESIZED = {
    (1500, 2250): (889, 1333),
    (2250, 1500): (1333, 889),
    (480, 640): (1000, 1333),
    (640, 480): (1333, 1000),
    (1200, 1300): (1024, 1109),
    (1100, 900): (1252, 1024),
    (2000, 2000): (1024, 1024),
    (300, 300): (1024, 1024),
    (750, 3000): (333, 1333),
    (2400, 600): (1333, 333),
}


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.fixture
def mapper() -> MaskDatasetMapper:
    cfg = get_cfg()
    add_pixelclip_config(cfg)
    cfg.merge_from_file(find_config("configs/pixelclip_vitb16.yaml"))
    seed_everything(0)
    return MaskDatasetMapper(cfg, True)


def draws_for(probability: float) -> int:
    """How many draws make 5% of a probability four standard deviations of what is observed."""
    return round(4**2 * (1 - probability) / probability / 0.05**2)


def assert_probability(happened: ArrayLike, probability: float) -> None:
    assert np.size(happened) >= 0.95 * draws_for(probability)
    assert abs(np.mean(happened) - probability) < 0.05 * probability


def assert_uniform(values: ArrayLike, low: float, high: float, step: float = 0.0) -> None:
    """The values fill low..high evenly, where those that differ by a ``step`` can be told apart."""
    ordered = np.sort(np.asarray(values, float))
    assert low - step <= ordered[0] <= low + 0.05 * abs(low) + step
    assert high - 0.05 * abs(high) - step <= ordered[-1] <= high + step
    expected = np.clip((ordered - low) / (high - low), 0, 1)
    distance = np.abs(expected - np.linspace(0, 1, len(ordered))).max()
    assert distance < 2 / len(ordered) ** 0.5 + step / (high - low)


@pytest.mark.parametrize(("size", "resized"), RESIZED.items())
def test_the_short_side_becomes_1024_unless_the_long_one_exceeds_1333(mapper, size, resized):
    for _ in range(3):
        plan = mapper.weak_augmentation.plan(size)
        assert plan.resized == resized
        assert plan.crop == tuple(min(CROP, side) for side in resized)


def test_images_are_decoded_at_their_full_size(mapper):
    assert mapper.weak_augmentation.encoder_size is None


def test_crops_lie_anywhere_in_the_image_and_half_of_them_are_flipped(mapper):
    plans = [mapper.weak_augmentation.plan((1500, 2250)) for _ in range(draws_for(0.5))]
    # Whole numbers from 0: shifted by 1, so that the lower end is not 0.
    assert_uniform([plan.top + 1 for plan in plans], 1, 889 - CROP + 1, step=1)
    assert_uniform([plan.left + 1 for plan in plans], 1, 1333 - CROP + 1, step=1)
    assert_probability([plan.horizontal_flip for plan in plans], 0.5)
    assert not any(plan.vertical_flip for plan in plans)


def test_image_and_masks_move_together_and_the_rectangle_cuts_both(mapper, tmp_path: Path):
    """A bright red region and its mask, and a mask of the whole image: crops show the same."""
    height, width = 300, 450
    masks = np.ones((2, height, width), np.uint8)
    masks[1] = 0
    masks[1, 30:140, 40:180] = masks[1, 100:260, 300:400] = 1
    pixels = np.where(masks[1, :, :, None] == 1, (230, 130, 130), 100).astype(np.uint8)
    record = make_record(tmp_path, pixels, masks)
    kinds, brightness = set(), set()
    for seed in range(8):
        seed_everything(seed)
        plan = mapper.weak_augmentation.plan((height, width))
        seed_everything(seed)
        sample = mapper.map_record(record)
        assert sample["image"].shape == sample["image_strong"].shape == (3, CROP, CROP)
        (uncovered, region) = sample["masks"]
        weak, strong = (at_mask_resolution(sample[key]) for key in ("image", "image_strong"))
        middle = weak.float().mean()  # the color changes keep what is brighter brighter
        assert ((weak > middle) & uncovered == region).float().mean() > 0.98
        assert sample["image"][0].sum() > sample["image"][2].sum()  # RGB
        rows, columns = (~uncovered).nonzero().unbind(1)
        assert len(rows) == (np.ptp(rows.numpy()) + 1) * (np.ptp(columns.numpy()) + 1)
        assert strong[~uncovered].max() == 0
        kinds.add(plan.horizontal_flip)
        brightness.add(weak.min().item())
    assert kinds == {False, True}
    assert len(brightness) > 4  # the color augmentation leaves few images as they are


def make_record(
    folder: Path, pixels: NDArray[np.uint8], masks: NDArray[np.uint8]
) -> dict[str, Any]:
    annotations = {"annotations": [{"segmentation": encode(mask)} for mask in masks]}
    files = {"x.png": image_bytes(pixels, "PNG"), "x.json": json.dumps(annotations).encode()}
    write_files(folder, files)
    (record,) = load_sa1b(folder)
    return record


def at_mask_resolution(image: torch.Tensor) -> torch.Tensor:
    """The brightest channel (256, 256) of an image (3, 640, 640) at the masks' pixels."""
    nearest = torch.nn.functional.interpolate(image[None].float(), (256, 256), mode="nearest")
    return nearest[0].amax(dim=0)


def test_masks_of_one_pixel_at_mask_resolution_are_dropped(mapper):
    masks = torch.zeros(4, *mapper.mask_resolution, dtype=torch.bool)
    assert masks.shape[1:] == (256, 256)
    for pixels, mask in enumerate(masks):
        mask.view(-1)[1000 : 1000 + pixels] = True  # (256, 256) -> (256*256,)
    kept, _ = gather_training_masks([{"masks": masks}], mapper.mask_resolution, torch.device("cpu"))
    assert kept.flatten(1).sum(dim=1).tolist() == [2, 3]  # (N, 256*256) summed to (N,)


@pytest.fixture(scope="module")
def strong_draws() -> SimpleNamespace:
    """What is drawn for one strong image after the other; nothing but the gray shows in them."""
    draws = SimpleNamespace(jitters=[], sigmas=[], is_gray=[], blurred_gray=0)
    jitter: list[tuple[str, float]] = []

    def note_change(change):
        return lambda image, factor: jitter.append((change.__name__, factor)) or image

    def note_blur(image, sigma):
        draws.sigmas[-1] = sigma
        draws.blurred_gray += is_gray(image)
        return image

    def is_gray(image):
        shown = image.max(axis=(0, 1)).tolist()  # what is not black
        return min(shown) == max(shown)

    image = np.full((2, 2, 3), (50, 120, 200), np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        changes = tuple(map(note_change, augmentation._ADJUSTMENTS))
        patch.setattr(augmentation, "_ADJUSTMENTS", changes)
        patch.setattr(augmentation, "blur", note_blur)
        augment = StrongAugmentation()
        seed_everything(0)
        for _ in range(draws_for(0.2)):
            jitter.clear()
            draws.sigmas.append(None)
            draws.is_gray.append(is_gray(augment(image)[0]))
            draws.jitters.append(tuple(jitter))
    return draws


def test_colors_are_jittered_in_any_order_with_probability_0_8(strong_draws):
    jitters = [jitter for jitter in strong_draws.jitters if jitter]
    assert_probability([bool(jitter) for jitter in strong_draws.jitters], 0.8)
    orders = Counter(tuple(name for name, _ in jitter) for jitter in jitters)
    names = {"adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue"}
    assert len(orders) == 24 and all(set(order) == names for order in orders)
    expected = len(jitters) / 24
    assert all(abs(count - expected) < 4 * expected**0.5 for count in orders.values())
    for name in names - {"adjust_hue"}:
        assert_uniform([dict(jitter)[name] for jitter in jitters], 0.5, 1.5)
    assert_uniform([dict(jitter)["adjust_hue"] for jitter in jitters], -0.25, 0.25)


def test_a_fifth_of_the_strong_images_is_gray(strong_draws):
    assert_probability(strong_draws.is_gray, 0.2)


def test_half_of_the_strong_images_are_blurred_after_their_colors_are_changed(strong_draws):
    sigmas = [sigma for sigma in strong_draws.sigmas if sigma is not None]
    assert_probability([sigma is not None for sigma in strong_draws.sigmas], 0.5)
    assert_uniform(sigmas, 0.1, 2.0)
    both = zip(strong_draws.sigmas, strong_draws.is_gray, strict=True)
    assert strong_draws.blurred_gray == sum(bool(sigma) and gray for sigma, gray in both) > 0


@pytest.mark.parametrize("axis", [0, 1])
def test_one_rectangle_of_a_tenth_to_half_of_each_side_is_black(axis):
    side = 500
    size = (side, 2) if axis == 0 else (2, side)
    image, augment = np.full((*size, 3), 128, np.uint8), StrongAugmentation()
    sides, places = [], []
    seed_everything(0)
    for _ in range(2500):
        strong, (top, left, bottom, right) = augment(image)
        assert not strong[top:bottom, left:right].any() and bottom > top and right > left
        assert np.count_nonzero(strong) == 3 * (2 * side - (bottom - top) * (right - left))
        start, end = ((top, bottom), (left, right))[axis]
        sides.append((end - start) / side)
        places.append(start / (side - (end - start)))
    assert_uniform(sides, 0.1, 0.5, step=1 / side)
    assert_uniform(places, 0, 1, step=1 / (side / 2))


# Of SSD's color augmentation: two grays tell the brightness and the contrast, whose changes the
# colors share; saturation and hue leave grays as they are.
GRAYS = (40, 130)
HSV = (70, 153, 250)  # as OpenCV counts: hue 0..179, saturation 0..255, value 0..255


@pytest.fixture(scope="module")
def ssd_draws() -> NDArray[np.float64]:
    """(draws, 5): both grays, then hue, saturation and value of the color after the change."""
    color = cv2.cvtColor(np.array([[HSV]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0]
    image = np.array([[(gray,) * 3 for gray in GRAYS] + [color]], np.uint8)
    seed_everything(0)
    changed = [augment_ssd_colors(image) for _ in range(4 * draws_for(0.5))]
    # (draws, 1, 3, 3) -> (draws, 3, 3)
    hsv = cv2.cvtColor(np.stack(changed)[:, 0], cv2.COLOR_RGB2HSV).astype(float)
    return np.column_stack([hsv[:, 0, 2], hsv[:, 1, 2], hsv[:, 2]])


def test_ssd_changes_the_brightness_by_up_to_32_half_of_the_time(ssd_draws):
    same_contrast = ssd_draws[ssd_draws[:, 1] - ssd_draws[:, 0] == GRAYS[1] - GRAYS[0]]
    deltas = same_contrast[:, 0] - GRAYS[0]  # rounded down
    changed = deltas[deltas != 0]
    assert_uniform(changed, -32, 32, step=1)
    # One change in 64 rounds to 0.
    assert_probability(deltas != 0, 0.5 * 63 / 64)


def test_ssd_changes_the_contrast_by_half_at_most_half_of_the_time(ssd_draws):
    distances, before = ssd_draws[:, 1] - ssd_draws[:, 0], GRAYS[1] - GRAYS[0]
    factors = distances[distances != before] / before
    assert_uniform(factors, 0.5, 1.5, step=1 / before)
    assert_probability(distances != before, 0.5 * (1 - 1 / before))


def test_ssd_changes_saturation_and_hue_each_half_of_the_time(ssd_draws):
    is_plain = (ssd_draws[:, :2] == GRAYS).all(axis=1)
    hues, saturations, values = ssd_draws[is_plain, 2:].T
    assert (abs(values - HSV[2]) <= 1).all()
    changes = hues - HSV[0]
    shares = Counter(changes)
    assert_uniform(changes[changes != 0], -18, 18, step=1)
    assert set(shares) == set(range(-18, 19))
    assert_probability(changes != 0, 0.5 * 36 / 37)
    factors = saturations / HSV[1]
    assert_uniform(factors[factors != 1], 0.5, 1.5, step=1 / HSV[1])
    assert_probability(factors != 1, 0.5 * (1 - 1 / HSV[1]))


def test_ssd_changes_the_contrast_first_or_last(monkeypatch):
    calls: list[str] = []
    for name in ("brightness", "contrast", "saturation", "hue"):
        note = lambda self, image, name=name: calls.append(name) or image  # noqa: E731
        monkeypatch.setattr(augmentation.ColorAugSSDTransform, name, note)
    seed_everything(0)
    orders = []
    for _ in range(draws_for(0.5)):
        calls.clear()
        augment_ssd_colors(np.zeros((1, 1, 3), np.uint8))
        orders.append(tuple(calls))
    first = ("brightness", "contrast", "saturation", "hue")
    last = ("brightness", "saturation", "hue", "contrast")
    assert set(orders) == {first, last}
    assert_probability([order == first for order in orders], 0.5)
