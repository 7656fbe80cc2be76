import math

import pytest
import torch

from pixelclip.modeling.training_statistics import assignment_entropy, feature_agreement

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


def test_agreement_looks_at_directions_only():
    features = torch.randn(2, 3, 4, 5)
    assert feature_agreement(features, 7 * features).item() == pytest.approx(1)
    assert feature_agreement(features, -features).item() == pytest.approx(-1)
    half = torch.cat([features, -features])
    agreement = feature_agreement(torch.cat([features, features]), half)
    assert agreement.item() == pytest.approx(0, abs=1e-6)


def test_the_model_keeps_both_and_no_graph(tiny_model):
    tiny_model.train()(make_batch())
    assert 0 < tiny_model.assignment_entropy.item() <= 1
    assert -1 <= tiny_model.teacher_agreement.item() <= 1
    assert not tiny_model.teacher_agreement.requires_grad
    assert not {"assignment_entropy", "teacher_agreement"} & set(tiny_model.state_dict())
