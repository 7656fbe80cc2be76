import numpy as np
import pytest

from pixelclip.toy import textures
from pixelclip.toy.textures import STUFF_NAMES, draw_stuff, smooth_noise

SIZE = (40, 56)


@pytest.mark.parametrize("name", STUFF_NAMES)
def test_a_texture_follows_from_the_seed_and_varies_with_it(name):
    first, again, other = (draw_stuff(np.random.default_rng(s), name, SIZE) for s in (1, 1, 2))
    assert first.shape == (*SIZE, 3)
    assert first.dtype == np.float32
    assert first.min() >= 0
    assert first.max() <= 1
    assert np.array_equal(first, again)
    assert np.abs(first - other).mean() > 0.01


def test_most_stuff_has_the_typical_hue(monkeypatch):
    hues = []
    monkeypatch.setitem(
        textures._STUFF,
        "sky",
        (lambda rng, size, hue: hues.append(hue) or np.zeros((*size, 3)), 0.58),
    )
    rng = np.random.default_rng(0)
    for _ in range(400):
        draw_stuff(rng, "sky", (2, 2))
    near = np.mean(np.abs(np.array(hues) - 0.58) < 0.1)
    # 70 % typical ones, and a fifth of the others by chance
    assert near == pytest.approx(0.76, abs=0.06)


def test_the_stones_are_the_regions_nearest_to_random_points():
    texture = textures._stone(np.random.default_rng(3), SIZE, 0.6)
    rng = np.random.default_rng(3)
    spacing = rng.uniform(8, 14)
    centers = rng.random((max(3, round(SIZE[0] * SIZE[1] / spacing**2)), 2)) * SIZE
    pixels = np.stack(np.mgrid[: SIZE[0], : SIZE[1]], axis=-1)
    distances = np.sort(np.linalg.norm(pixels[:, :, None] - centers, axis=-1), axis=-1)
    is_joint = distances[..., 1] - distances[..., 0] < 1.6
    assert 0.1 < is_joint.mean() < 0.9
    assert np.allclose(texture[is_joint].max(axis=1), 0.25)
    assert texture[~is_joint].max(axis=1).min() > 0.25


def test_noise_has_about_the_asked_scale():
    rng = np.random.default_rng(0)
    fine, coarse = smooth_noise(rng, (64, 64), 2, 2), smooth_noise(rng, (64, 64), 16, 16)
    assert fine.shape == coarse.shape == (64, 64)
    assert np.abs(np.diff(fine, axis=0)).mean() > 4 * np.abs(np.diff(coarse, axis=0)).mean()
    assert abs(float(fine.mean()) - 0.5) < 0.05
