import math

import pytest
import torch
from detectron2.utils.events import EventStorage

from pixelclip.modeling.training_statistics import (
    assignment_entropy,
    report_agreement,
    report_clusters,
)

from ..conftest import make_batch


@pytest.mark.parametrize(
    ("shares", "entropy"),
    [
        (torch.eye(5), 0),
        (torch.full((7, 5), 0.2), 1),
        (torch.tensor([[0.5, 0.5, 0, 0], [1, 0, 0, 0]]), 0.25),
        (torch.zeros(0, 4), 0),
        (torch.ones(3, 1), 0),
    ],
)
def test_entropy_in_units_of_the_largest(shares, entropy):
    assert assignment_entropy(shares).item() == pytest.approx(entropy, abs=1e-6)


def test_entropy_is_that_of_torchs_categorical():
    shares = torch.rand(6, 9).softmax(dim=1)
    expected = torch.distributions.Categorical(shares).entropy().mean() / math.log(9)
    torch.testing.assert_close(assignment_entropy(shares), expected)


def latest(storage):
    return {name: value for name, (value, _) in storage.latest().items()}


def test_cluster_shares_are_recorded():
    probabilities = torch.eye(4)[[0, 0, 0, 2]]
    with EventStorage() as storage:
        report_clusters(probabilities)
        assert latest(storage) == {
            "clusters/used": 0.5,
            "clusters/largest": 0.75,
            "clusters/assignment_entropy": 0.0,
        }


def test_without_masks_there_are_no_shares():
    with EventStorage() as storage:
        report_clusters(torch.zeros(0, 4))
        assert not storage.latest()


def test_agreement_looks_at_directions_only():
    features = torch.randn(2, 3, 4, 5)
    for other, expected in ((7 * features, 1), (-features, -1)):
        with EventStorage() as storage:
            report_agreement(features, other)
            assert latest(storage)["teacher/agreement"] == pytest.approx(expected)


def test_the_model_reports_both_within_a_trainer_and_runs_without(tiny_model):
    tiny_model.train()(make_batch())
    with EventStorage() as storage:
        tiny_model(make_batch())
    reported = latest(storage)
    assert 0 < reported["clusters/assignment_entropy"] <= 1
    assert -1 <= reported["teacher/agreement"] <= 1
