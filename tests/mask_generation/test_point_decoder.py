"""The decoder gives the numbers of transformers' SamModel."""

import pytest
import torch

pytest.importorskip("transformers", reason="the extra 'masks' is not installed")

from pixelclip.mask_generation.point_decoder import PointDecoder

from .tiny_models import SIDE, build_tiny_sam

GRID = SIDE // 16


def random_points(count):
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(1)) * SIDE


@pytest.fixture
def features():
    return torch.randn(1, 16, GRID, GRID, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@torch.no_grad()
def test_scores_and_masks_are_those_of_transformers(num_layers, features):
    model, points = build_tiny_sam(num_layers), random_points(5)
    # Its weights are 0 otherwise.
    torch.nn.init.normal_(model.mask_decoder.iou_prediction_head.proj_out.weight)
    labels = torch.ones(1, len(points), 1)
    expected = model(
        image_embeddings=features, input_points=points[None, :, None], input_labels=labels
    )
    decoder = PointDecoder(model, features)
    answers = decoder.attend(points)
    torch.testing.assert_close(answers.predicted_iou, expected.iou_scores[0], rtol=1e-4, atol=1e-5)
    whole, masks = (4 * GRID, 4 * GRID), expected.pred_masks[0]
    close = {"rtol": 1e-4, "atol": 1e-5 * masks.abs().max().item()}
    torch.testing.assert_close(decoder.masks(answers, whole), masks, **close)
    chosen = torch.tensor([False, True, False, True, True])
    part = decoder.masks(answers.select(chosen), (9, 14))
    torch.testing.assert_close(part, masks[chosen, :, :9, :14], **close)


@torch.no_grad()
def test_no_point_has_no_mask(features):
    decoder = PointDecoder(build_tiny_sam(1), features)
    answers = decoder.attend(random_points(2))
    assert decoder.masks(answers.select(torch.zeros(2, dtype=torch.bool)), (5, 6)).shape == (
        0, 3, 5, 6,
    )  # fmt: skip
