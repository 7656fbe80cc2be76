import io
import json

import numpy as np
import pytest
from PIL import Image

from pixelclip import Predictor
from pixelclip.toy.scenes import make_scene
from pixelclip.utils.visualization import class_colors, overlay_labels
from pixelclip.web.models import OURS, LabelMap
from pixelclip.web.viewer import VOID_LABEL, Segmentation, pack_pixels, show_segmentation
from tests.web.conftest import TOY_CONFIG

NAMES = ("sky", "stone", "car")
SCENE = make_scene(13, 0).pixels


def make_segmentation(**view):
    labels = np.array([[0, 0, 1], [1, 2, 2]], np.uint8)
    similarity = np.array([[0.1, 0.2, 0.3], [0.25, -0.1, 0.2]], np.float32)
    image = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 10
    label_maps = {OURS: LabelMap(labels, similarity), "CLIP": LabelMap(labels, similarity + 0.5)}
    return Segmentation(image, NAMES, label_maps, **view)


@pytest.mark.parametrize("threshold", [-1.0, 0.3, 0.35, 1.0])
def test_a_threshold_is_the_predictors(toy_models, threshold):
    """Changing the threshold afterwards equals asking the model with it."""
    label_map = toy_models.label(OURS, SCENE, NAMES)
    shown = Segmentation(SCENE, NAMES, {OURS: label_map}, threshold)
    found = shown.shown_labels(label_map)
    predict = Predictor.from_config(TOY_CONFIG)
    expected = predict(SCENE, list(NAMES), background_threshold=threshold).labels.numpy()
    np.testing.assert_array_equal(np.where(found == VOID_LABEL, len(NAMES), found), expected)


def test_hidden_classes_and_background_are_void():
    shown = make_segmentation(threshold=0.15, hidden=frozenset({1}))
    expected = [[VOID_LABEL, 0, 255], [255, 255, 2]]
    assert shown.shown_labels(shown.label_maps[OURS]).tolist() == expected


def test_shares_are_of_the_pixels_above_the_threshold_hidden_or_not():
    shown = make_segmentation(threshold=0.15, hidden=frozenset({1}))
    assert shown.shares() == [(1, 2 / 6), (0, 1 / 6), (2, 1 / 6)]


def test_void_pixels_show_the_image_and_others_their_color():
    shown = make_segmentation(threshold=0.15, opacity=0.4, hidden=frozenset({1}))
    drawn = shown.draw(shown.label_maps[OURS])
    void = shown.shown_labels(shown.label_maps[OURS]) == VOID_LABEL
    np.testing.assert_array_equal(drawn[void], shown.image[void])
    whole = make_segmentation(opacity=0.4)
    expected = overlay_labels(whole.image, whole.label_maps[OURS].labels, class_colors(NAMES), 0.4)
    np.testing.assert_array_equal(whole.draw(whole.label_maps[OURS]), expected)


def test_the_range_of_thresholds_goes_from_nothing_to_everything():
    low, high = make_segmentation().similarity_range()
    everything = make_segmentation(threshold=high)
    assert all((everything.shown_labels(m) == 255).all() for m in everything.label_maps.values())
    nothing = make_segmentation(threshold=low)
    assert not any((nothing.shown_labels(m) == 255).any() for m in nothing.label_maps.values())


def test_files_hold_what_is_shown():
    shown = make_segmentation(threshold=0.15, hidden=frozenset({1}))
    main = shown.label_maps[OURS]
    with Image.open(io.BytesIO(shown.encode_labels())) as image:
        np.testing.assert_array_equal(np.asarray(image), shown.shown_labels(main))
        assert json.loads(image.text["class_names"]) == list(NAMES)
        colors = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(colors[0, 1], class_colors(NAMES)[0])
    np.testing.assert_array_equal(colors[0, 0], (255, 255, 255))
    with Image.open(io.BytesIO(shown.encode_overlay())) as image:
        np.testing.assert_array_equal(np.asarray(image)[:2, :3], shown.draw(main))
        assert image.height > 2  # the legend


def make_label_map(height, width):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 100, (height, width)).astype(np.uint8)
    return LabelMap(labels, generator.uniform(-1, 1, (height, width)).astype(np.float32))


def test_packed_pixels_hold_class_and_cosine():
    label_map = make_label_map(50, 70)
    red, green, blue = np.moveaxis(pack_pixels(label_map).astype(int), -1, 0)
    np.testing.assert_array_equal(red, label_map.labels)
    cosines = (256 * green + blue) / 65535 * 2 - 1  # as the script in the page does it
    np.testing.assert_allclose(cosines, label_map.similarity, atol=2e-5)


def test_packed_pixels_of_large_images_are_fewer():
    packed = pack_pixels(make_label_map(30, 1281))
    assert packed.shape == (10, 427, 3)


def test_names_cannot_become_markup():
    names = ('<img src=x onerror="alert(1)">', "${1+1} `{{2}}` & 'sky'")
    label_map = LabelMap(np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.float32))
    image = np.zeros((4, 4, 3), np.uint8)
    shown = show_segmentation(Segmentation(image, names, {OURS: label_map}))
    assert "<img src=x" not in shown
    assert "&lt;img src=x onerror=&quot;alert(1)&quot;&gt;" in shown


def test_the_legend_has_every_class_the_largest_first_and_hidden_ones_unchecked():
    labels = np.array([[1, 1, 2]], np.uint8)
    label_map = LabelMap(labels, np.zeros((1, 3), np.float32))
    names, image = ("sky", "sea", "sand"), np.zeros((1, 3, 3), np.uint8)
    shown = show_segmentation(
        Segmentation(image, names, {OURS: label_map}, hidden=frozenset({2}))
    )
    legend = shown[shown.index('class="legend"') :]
    assert legend.index("sea") < legend.index("sand") < legend.index("sky")
    assert [f'data-class="{index}" checked' in legend for index in range(3)] == [True, True, False]
    assert "66.7%" in legend
