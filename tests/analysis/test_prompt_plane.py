import sys

import numpy as np
import pytest

from pixelclip.analysis.prompt_plane import embed_in_plane


def groups(count, seed):
    """Vectors about four directions, in turn, with an offset of their own."""
    generator = np.random.default_rng(seed)
    centres = 10 * np.eye(4, 8)[np.arange(count) % 4]
    return centres + generator.normal(size=(count, 8)) + 5 * generator.normal(size=8)


def test_what_points_the_same_way_is_near_and_seeds_repeat():
    pytest.importorskip("sklearn")
    prompts, names = embed_in_plane(groups(24, 0), groups(12, 1))
    assert (prompts.shape, names.shape) == ((24, 2), (12, 2))
    distances = np.linalg.norm(prompts[:, None] - names[None], axis=2)
    assert (distances.argmin(axis=1) % 4 == np.arange(24) % 4).mean() > 0.8
    again, _ = embed_in_plane(groups(24, 0), groups(12, 1))
    np.testing.assert_array_equal(prompts, again)


def test_few_points_do():
    pytest.importorskip("sklearn")
    prompts, names = embed_in_plane(np.eye(2, 5), np.eye(1, 5))
    assert np.isfinite(prompts).all() and np.isfinite(names).all()
    with pytest.raises(ValueError, match="2 prompts and names"):
        embed_in_plane(np.eye(1, 5), np.eye(1, 5))


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(ImportError, match=r'pip install -e "\.\[visualization\]"'):
        embed_in_plane(np.eye(4), np.eye(4))
