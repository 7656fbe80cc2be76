import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from pixelclip.toy.objects import THING_NAMES
from pixelclip.toy.painting import PATTERNS, Painting, draw_coverage

SIZE = (40, 48)


def whole(coverage, window):
    """The coverage of all pixels of the image."""
    image = np.zeros(SIZE, np.float32)
    image[window] = coverage
    return image


def drawn_large(polygons):
    """The same at four times the size, averaged over the whole image."""
    canvas = Image.new("L", (SIZE[1] * 4, SIZE[0] * 4))
    for polygon in polygons:
        ImageDraw.Draw(canvas).polygon([tuple(corner) for corner in polygon * 4], fill=255)
    return np.asarray(canvas, np.float32).reshape(SIZE[0], 4, SIZE[1], 4).mean((1, 3)) / 255


@pytest.mark.parametrize("seed", range(10))
def test_coverage_is_the_covered_fraction_of_each_pixel(seed):
    rng = np.random.default_rng(seed)
    polygons = [rng.uniform(-15, 60, (4, 2)) for _ in range(2)]
    coverage, window = draw_coverage(polygons, SIZE)
    # Averages are rounded to 1/255.
    np.testing.assert_allclose(whole(coverage, window), drawn_large(polygons), atol=0.51 / 255)
    assert coverage[0].any() and coverage[:, -1].any(), "the window is no larger than needed"


def test_what_lies_outside_covers_nothing():
    coverage, window = draw_coverage([np.array([(-9.0, -9), (-5, -9), (-5, -5)])], SIZE)
    assert coverage.size == 0
    assert not whole(coverage, window).any()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_in_a_window_is_a_piece_of_the_whole(pattern):
    window = (slice(5, 20), slice(30, 41))
    draw = PATTERNS[pattern]
    rngs = [np.random.default_rng(2) for _ in range(2)]
    everywhere = np.broadcast_to(draw(rngs[0], SIZE, (slice(0, 40), slice(0, 48))), SIZE)
    piece = np.broadcast_to(draw(rngs[1], SIZE, window), (15, 11))
    assert np.array_equal(piece, everywhere[window])
    assert rngs[0].random() == rngs[1].random(), "the numbers drawn do not depend on the window"


def gray_painting():
    painting = Painting(SIZE)
    painting.paint_stuff("sky", np.full((*SIZE, 3), 0.5, np.float32), np.ones(SIZE, np.float32))
    return painting


@pytest.mark.parametrize("name", THING_NAMES)
def test_masks_are_where_the_object_was_painted(name):
    painting = gray_painting()
    painting.paint_object(np.random.default_rng(1), name, (24, 20), 30)
    background, painted = painting.layers
    changed = (painting.pixels != 0.5).any(axis=2)
    # The smooth border is painted where it covers less than half of a pixel, too.
    assert not (changed & ~ndimage.binary_dilation(painted.mask, iterations=2)).any()
    assert np.mean(changed[painted.mask]) > 0.99
    assert painted.mask.sum() > 30
    assert np.array_equal(background.mask, ~painted.mask)
    parts = np.stack(list(painted.parts.values()))
    assert np.array_equal(parts.any(axis=0), painted.mask)
    assert parts.sum(axis=0).max() == 1, "a part in front hides the parts behind it"


def test_what_is_in_front_hides_what_is_behind():
    painting = gray_painting()
    rng = np.random.default_rng(4)
    for center in ((15, 20), (22, 20), (29, 20)):
        painting.paint_object(rng, "house", center, 25)
    masks = np.stack([layer.mask for layer in painting.layers])
    assert (masks.sum(axis=0) == 1).all(), "each pixel belongs to one layer"
    for layer in painting.layers[1:]:
        assert np.array_equal(np.stack(list(layer.parts.values())).any(axis=0), layer.mask)


def test_an_object_outside_the_image_leaves_it_unchanged():
    painting = gray_painting()
    painting.paint_object(np.random.default_rng(1), "car", (-200, -200), 20)
    assert (painting.pixels == 0.5).all()
    assert not painting.layers[1].mask.any()


def test_the_finished_image_has_light_and_noise():
    first, second = (gray_painting().finish(np.random.default_rng(seed)) for seed in (1, 2))
    assert first.dtype == np.uint8
    assert first.shape == (*SIZE, 3)
    assert abs(int(first.mean()) - int(second.mean())) > 2
    assert first[:, 20].std() > 0
