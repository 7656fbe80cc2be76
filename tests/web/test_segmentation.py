import io
import json

import numpy as np
import pytest
from PIL import Image

from pixelclip import Predictor
from pixelclip.toy.scenes import make_scene
from pixelclip.utils.label_overlay import overlay_labels
from pixelclip.utils.visualization import class_colours
from pixelclip.web.models import OURS, PLAIN
from pixelclip.web.segmentation import VOID_LABEL, LabelMap, Segmentation, View
from tests.web.conftest import TOY_CONFIG

NAMES = ("sky", "stone", "car")
PICTURE = make_scene(13, 0).pixels


def make_segmentation(view=None):
    labels = np.array([[0, 0, 1], [1, 2, 2]], np.uint8)
    similarity = np.array([[0.1, 0.2, 0.3], [0.25, -0.1, 0.2]], np.float32)
    picture = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 10
    label_maps = {OURS: LabelMap(labels, similarity), PLAIN: LabelMap(labels, similarity + 0.5)}
    return Segmentation(picture, NAMES, label_maps, view or View())


@pytest.mark.parametrize("threshold", [-1.0, 0.3, 0.35, 1.0])
def test_a_threshold_is_the_predictors(toy_models, threshold):
    """Changing the threshold afterwards equals asking the model with it."""
    label_map = toy_models.label(OURS, PICTURE, NAMES)
    found = Segmentation(PICTURE, NAMES, {OURS: label_map}, View(threshold)).shown_labels(label_map)
    predict = Predictor.from_config(TOY_CONFIG)
    expected = predict(PICTURE, list(NAMES), background_threshold=threshold).labels.numpy()
    np.testing.assert_array_equal(np.where(found == VOID_LABEL, len(NAMES), found), expected)


def test_hidden_classes_and_background_are_void():
    shown = make_segmentation(View(threshold=0.15, hidden=frozenset({1})))
    assert shown.shown_labels(shown.main).tolist() == [[VOID_LABEL, 0, 255], [255, 255, 2]]
    np.testing.assert_allclose(shown.shares(shown.main), [1 / 6, 2 / 6, 1 / 6])


def test_void_pixels_show_the_picture_and_others_their_colour():
    shown = make_segmentation(View(0.15, opacity=0.4, hidden=frozenset({1})))
    drawn = shown.draw(shown.main)
    void = shown.shown_labels(shown.main) == VOID_LABEL
    np.testing.assert_array_equal(drawn[void], shown.picture[void])
    whole = make_segmentation(View(opacity=0.4))
    expected = overlay_labels(whole.picture, whole.main.labels, class_colours(3), 0.4)
    np.testing.assert_array_equal(whole.draw(whole.main), expected)


def test_the_range_of_thresholds_goes_from_nothing_to_everything():
    low, high = make_segmentation().similarity_range()
    everything = make_segmentation(View(high))
    assert all((everything.shown_labels(m) == 255).all() for m in everything.label_maps.values())
    nothing = make_segmentation(View(low))
    assert not any((nothing.shown_labels(m) == 255).any() for m in nothing.label_maps.values())


def test_files_hold_what_is_shown():
    shown = make_segmentation(View(0.15, hidden=frozenset({1})))
    with Image.open(io.BytesIO(shown.encode_labels())) as image:
        np.testing.assert_array_equal(np.asarray(image), shown.shown_labels(shown.main))
        assert json.loads(image.text["class_names"]) == list(NAMES)
        colours = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(colours[0, 1], class_colours(3)[0])
    np.testing.assert_array_equal(colours[0, 0], (255, 255, 255))
    with Image.open(io.BytesIO(shown.encode_overlay())) as image:
        np.testing.assert_array_equal(np.asarray(image)[:2, :3], shown.draw(shown.main))
        assert image.height > 2  # the legend
