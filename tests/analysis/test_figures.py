import numpy as np
import pytest
from PIL import Image

from pixelclip.analysis.figures import (
    draw_cluster_usage,
    draw_named_clusters,
    draw_prompt_map,
    name_regions,
)
from pixelclip.utils.visualization import class_colors, save_figure

NAMES = ["sky", "sea", "ship"]


@pytest.fixture
def clusters():
    """Cluster 0 everywhere but for a block of cluster 2, a smaller one of it, and a speck of 1."""
    clusters = np.zeros((40, 60), np.int64)
    clusters[10:30, 10:50] = 2
    clusters[35:39, 50:58] = 2
    clusters[0, 0] = 1
    return clusters


def test_each_large_region_is_named_where_it_is(clusters):
    found = {name: (row, column) for name, row, column in name_regions(clusters, NAMES)}
    assert set(found) == {"sky", "ship"}
    row, column = found["ship"]
    assert 18 <= row <= 21 and 18 <= column <= 41, "in the middle of the larger block"
    assert clusters[found["sky"]] == 0


def test_clusters_have_their_own_colors_over_the_image(clusters):
    image = np.full((40, 60, 3), 255, np.uint8)
    figure = draw_named_clusters([image], [[clusters]], [NAMES], ["k = 3"])
    shown, painted = (np.asarray(axes.images[0].get_array()) for axes in figure.axes)
    sky, _, ship = 0.7 * class_colors(NAMES) + 0.3 * 255
    for place, color in (((5, 30), sky), ((20, 30), ship)):
        np.testing.assert_allclose(painted[place], color, atol=0.5)
    assert (painted[20, 30] == painted[37, 55]).all()
    assert (shown == image).all()


def test_images_stand_next_to_the_maps_of_each_model(clusters, tmp_path):
    images = [np.zeros((40, 60, 3), np.uint8)] * 2
    other = ["tree", "grass", "hut"]
    figure = draw_named_clusters(
        images, [[clusters] * 2] * 2, [NAMES, other], ["k = 3", "again"], "of a test"
    )
    assert [axes.get_title() for axes in figure.axes] == ["image", "k = 3", "again", "", "", ""]
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts == [[], ["sky", "ship"], ["tree", "hut"]] * 2
    save_figure(figure, tmp_path / "x.png")
    assert Image.open(tmp_path / "x.png").width == 780


@pytest.mark.parametrize(("column", "side"), [(0, "left"), (25, "center"), (50, "right")])
def test_names_stay_inside_the_image(column, side):
    clusters = np.zeros((40, 60), np.int64)
    clusters[:, column : column + 10] = 1
    figure = draw_named_clusters([np.zeros((40, 60, 3), np.uint8)], [[clusters]], [NAMES], ["k"])
    (text,) = (text for text in figure.axes[1].texts if text.get_text() == "sea")
    assert text.get_ha() == side


def test_prompts_and_names_share_a_plane():
    prompts, names = np.random.rand(3, 2), np.random.rand(2, 2)
    (axes,) = draw_prompt_map(prompts, names, ["sofa, couch", "sea"], NAMES, "of a test").axes
    assert [text.get_text() for text in axes.texts] == ["0", "1", "2", "sofa", "sea"]
    shown = [points.get_offsets() for points in axes.collections]
    np.testing.assert_allclose(shown[0], names)
    np.testing.assert_allclose(shown[1], prompts)
    colors = axes.collections[1].get_facecolors()[:, :3]
    np.testing.assert_allclose(colors, class_colors(NAMES) / 255)


def test_the_most_used_clusters_come_first():
    shares = np.array([0.25, 0, 0.75])
    (axes,) = draw_cluster_usage(shares, ["sky", "sea", "ship"]).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["2: ship", "0: sky", "1: sea"]
    assert [bar.get_width() for bar in axes.patches] == [75, 25, 0]
    assert axes.get_title() == "2 of 3 clusters have pixels"


def test_of_very_many_clusters_the_rest_is_summed():
    (axes,) = draw_cluster_usage(np.full(100, 0.01), [str(i) for i in range(100)]).axes
    assert len(axes.patches) == 40
    assert axes.get_title() == "100 of 100 clusters have pixels; 60 more have 60.0%"


@pytest.mark.parametrize("prompt", [(0.1, 0.1), (-0.1, 0.1), (0.1, -0.1), (-0.1, -0.1)])
def test_words_do_not_cover_the_prompt_next_to_them(prompt):
    prompts = np.array([prompt, (9.0, 9.0)])
    (axes,) = draw_prompt_map(prompts, np.zeros((1, 2)), ["sea"], ["hut", "ship"]).axes
    word = axes.texts[-1]
    assert word.get_ha() == ("right" if prompt[0] > 0 else "left")
    assert word.get_va() == ("top" if prompt[1] > 0 else "bottom")
