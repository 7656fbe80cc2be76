"""Which points are asked about, and which of their masks stay."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="the extra 'masks' is not installed")

from pixelclip.mask_generation import automatic_masks
from pixelclip.mask_generation.automatic_masks import (
    find_masks,
    remove_small_regions,
    stability_scores,
)
from pixelclip.mask_generation.point_decoder import PointAnswers
from tests.data.sa1b_files import random_image

from .tiny_models import build_tiny_sam

SIDE = 256


class Discs:
    """A decoder that knows discs (x, y, radius), and finds those that a point lies in."""

    device = torch.device("cpu")

    def __init__(self, discs, predicted_iou=0.9, slope=10.0):
        self.discs, self.predicted_iou, self.slope = torch.tensor(discs), predicted_iou, slope
        self.asked = []

    def __call__(self, model, features):
        return self

    def attend(self, points):
        self.asked.extend(points.tolist())
        inside = (points[:, None] - self.discs[:, :2]).norm(dim=2) < self.discs[:, 2]  # (P, D)
        predicted = torch.where(inside, self.predicted_iou, 0.0)
        return PointAnswers(predicted, points, points)

    def masks(self, answers, size):
        rows, columns = torch.meshgrid(*(4.0 * torch.arange(n) + 2 for n in size), indexing="ij")
        x, y, radius = self.discs[:, :, None, None].unbind(dim=1)
        logits = self.slope * (radius - ((columns - x) ** 2 + (rows - y) ** 2).sqrt())
        return logits.expand(len(answers.tokens), -1, -1, -1)


class Model:
    """What :func:`find_masks` asks a model about itself."""

    device = torch.device("cpu")

    config = SimpleNamespace(prompt_encoder_config=SimpleNamespace(image_size=SIDE))

    def get_image_embeddings(self, pixels):
        assert pixels.shape == (1, 3, SIDE, SIDE)
        return pixels


DISCS = [[60.0, 60.0, 40.0], [180.0, 80.0, 50.0], [60.0, 60.0, 20.0]]


def find(monkeypatch, decoder, size=(200, 256), **options):
    monkeypatch.setattr(automatic_masks, "PointDecoder", decoder)
    return list(find_masks(Model(), random_image(0, *size), **options))


def test_each_object_is_found_once(monkeypatch):
    decoder = Discs(DISCS)
    found = find(monkeypatch, decoder, skip_covered=False)
    assert len(decoder.asked) == 32 * 32
    areas = sorted(one.mask.sum() for one in found)
    expected = sorted(np.pi * radius**2 for _, _, radius in DISCS)
    assert areas == pytest.approx(expected, rel=0.05)
    assert {one.mask.shape for one in found} == {(200, 256)}
    assert all(one.predicted_iou == pytest.approx(0.9) for one in found)
    assert all(0.95 < one.stability_score <= 1 for one in found)


def test_points_that_a_mask_covers_are_skipped(monkeypatch):
    decoder = Discs(DISCS)
    monkeypatch.setattr(automatic_masks, "_POINTS_IN_ROUND", 1)
    monkeypatch.setattr(automatic_masks, "_MAX_ROUNDS", 2000)
    assert find(monkeypatch, decoder)
    points = torch.tensor(decoder.asked)
    for x, y, radius in DISCS[:2]:
        distances = (points - torch.tensor([x, y])).norm(dim=1)
        assert (distances < radius).any()
        # A second one where the small disc was found first; a logit has 4 pixels.
        assert (distances < radius - 4).sum() <= 2
    assert len(points) > 32 * 32 / 2


def test_the_number_of_points_is_limited_only_where_covered_ones_are_skipped(monkeypatch):
    nothing = Discs(DISCS, predicted_iou=0.5)
    assert find(monkeypatch, nothing) == []
    assert len(nothing.asked) == 160
    assert find(monkeypatch, nothing, skip_covered=False) == []
    assert len(nothing.asked) == 160 + 1024


def test_masks_that_the_model_doubts_or_that_are_unstable_are_left_out(monkeypatch):
    assert find(monkeypatch, Discs(DISCS, predicted_iou=0.87)) == []
    assert find(monkeypatch, Discs(DISCS, predicted_iou=0.89))
    # The logits change by 1 with each pixel: discs of a radius up to 80 are unstable.
    discs = [[60.0, 60.0, 40.0], [130.0, 100.0, 95.0], [200.0, 100.0, 70.0]]
    (only,) = find(monkeypatch, Discs(discs, slope=1.0))
    assert only.mask.sum() > np.pi * 80**2


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 20), (64, 64)])
def test_images_of_any_shape_have_masks_of_their_size(monkeypatch, size):
    found = find(monkeypatch, Discs([[128.0, 128.0, 400.0]] * 3), size)
    assert [one.mask.shape for one in found if one.mask.all()] in ([size], [])


def test_a_real_decoder_finds_the_same_each_time():
    model, image = build_tiny_sam(2), random_image(0, 50, 64)
    first, second = (list(find_masks(model, image)) for _ in range(2))
    assert first
    assert [one.mask.tobytes() for one in first] == [one.mask.tobytes() for one in second]
    assert [one[1:] for one in first] == [one[1:] for one in second]


def test_stability_is_the_overlap_of_two_thresholds():
    logits = torch.randn(5, 9, 7, generator=torch.Generator().manual_seed(0)) * 2
    logits[4] = -3
    inner, outer = logits.numpy() > 1, logits.numpy() > -1
    overlaps = [(a & b).sum() / max((a | b).sum(), 1) for a, b in zip(inner, outer, strict=True)]
    assert stability_scores(logits).tolist() == pytest.approx(overlaps)


def test_small_holes_are_filled_and_small_regions_go():
    mask = np.zeros((40, 40), bool)
    mask[5:25, 5:25] = True
    mask[10:12, 10:12] = False  # 4 pixels
    mask[15:20, 15:20] = False  # 25
    mask[30:32, 30:33] = True  # 6
    mask[34:38, 20:24] = True  # 16
    mask[38, 24] = True  # touches it at a corner
    cleaned = remove_small_regions(mask, 17)
    expected = mask.copy()
    expected[10:12, 10:12] = True
    expected[30:32, 30:33] = False
    assert np.array_equal(cleaned, expected)
    assert np.array_equal(remove_small_regions(mask, 0), mask)
    assert not remove_small_regions(mask, 10**4).any()
    assert remove_small_regions(np.ones((4, 4), bool), 2).all()
