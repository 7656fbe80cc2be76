import numpy as np
import pytest

from pixelclip.toy.objects import THING_NAMES, make_shape
from pixelclip.toy.painting import PATTERNS


@pytest.mark.parametrize("name", THING_NAMES)
def test_an_object_has_several_named_parts_in_its_square(name):
    for seed in range(20):
        shape = make_shape(np.random.default_rng(seed), name)
        names = [part.name for part in shape]
        assert len(set(names)) == len(names) >= 2
        corners = np.concatenate([polygon for part in shape for polygon in part.polygons])
        assert np.abs(corners).max() <= 0.65
        assert np.ptp(corners, axis=0).max() > 0.7, "its longer side is about one"
        for part in shape:
            assert part.pattern in PATTERNS
            assert all(0 <= value <= 1 for value in part.color)
            assert all(p.ndim == 2 and len(p) >= 3 and p.shape[1] == 2 for p in part.polygons)


@pytest.mark.parametrize("name", THING_NAMES)
def test_its_shape_follows_from_the_seed_and_varies_with_it(name):
    def corners(seed):
        shape = make_shape(np.random.default_rng(seed), name)
        return np.concatenate([polygon for part in shape for polygon in part.polygons])

    assert np.array_equal(corners(1), corners(1))
    assert any(not np.array_equal(corners(1), corners(seed)) for seed in (2, 3))
