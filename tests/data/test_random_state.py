import random

import numpy as np
import torch

from pixelclip.data.random_state import random_state_from


def seed_all():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_same_key_same_numbers_and_other_key_others():
    def draws(*key):
        with random_state_from(*key):
            return draw()

    assert draws(1, 2, 3) == draws(1, 2, 3)
    for other in [(1, 2, 4), (1, 2), (0, 2, 3)]:
        assert all(a != b for a, b in zip(draws(1, 2, 3), draws(*other), strict=True))


def test_generators_outside_go_on_undisturbed():
    seed_all()
    expected = draw()
    seed_all()
    try:
        with random_state_from(7):
            draw()
            raise KeyError
    except KeyError:
        pass
    assert draw() == expected
