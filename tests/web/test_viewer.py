import numpy as np

from pixelclip.web.models import OURS
from pixelclip.web.segmentation import LabelMap, Segmentation, View
from pixelclip.web.viewer import pack_pixels, show_segmentation


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


def test_packed_pixels_of_large_pictures_are_fewer():
    packed = pack_pixels(make_label_map(30, 1281))
    assert packed.shape == (10, 427, 3)


def test_names_cannot_become_markup():
    names = ('<img src=x onerror="alert(1)">', "${1+1} `{{2}}` & 'sky'")
    label_map = LabelMap(np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.float32))
    picture = np.zeros((4, 4, 3), np.uint8)
    shown = show_segmentation(Segmentation(picture, names, {OURS: label_map}, View()))
    assert "<img src=x" not in shown
    assert "&lt;img src=x onerror=&quot;alert(1)&quot;&gt;" in shown


def test_the_legend_has_every_class_the_largest_first_and_hidden_ones_unchecked():
    labels = np.array([[1, 1, 2]], np.uint8)
    label_map = LabelMap(labels, np.zeros((1, 3), np.float32))
    view = View(hidden=frozenset({2}))
    names = ("sky", "sea", "sand")
    shown = show_segmentation(
        Segmentation(np.zeros((1, 3, 3), np.uint8), names, {OURS: label_map}, view)
    )
    legend = shown[shown.index('class="legend"') :]
    assert legend.index("sea") < legend.index("sand") < legend.index("sky")
    assert [f'data-class="{index}" checked' in legend for index in range(3)] == [True, True, False]
    assert "66.7%" in legend
