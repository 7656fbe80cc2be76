import numpy as np
import pytest
from PIL import Image

from pixelclip.analysis.cluster_images import (
    NamedClusters,
    draw_cluster_usage,
    draw_named_clusters,
    draw_prompt_map,
)
from pixelclip.utils.visualization import save_figure


@pytest.fixture
def named():
    """Cluster 0 everywhere but for a block of cluster 2, a smaller one of it, and a speck of 1."""
    clusters = np.zeros((40, 60), np.int64)
    clusters[10:30, 10:50] = 2
    clusters[35:39, 50:58] = 2
    clusters[0, 0] = 1
    return NamedClusters(clusters, ["sky", "sea", "ship"])


def test_each_large_region_is_named_where_it_is(named):
    found = {name: (row, column) for name, row, column in named.regions()}
    assert set(found) == {"sky", "ship"}
    row, column = found["ship"]
    assert 18 <= row <= 21 and 18 <= column <= 41, "in the middle of the larger block"
    assert named.clusters[found["sky"]] == 0


def test_clusters_have_their_own_colours_over_the_picture(named):
    picture = np.full((40, 60, 3), 255, np.uint8)
    painted = named.paint(picture)
    colours = {tuple(painted[place]) for place in ((5, 30), (20, 30))}
    assert len(colours) == 2
    assert (painted[20, 30] == painted[37, 55]).all()
    assert (picture == 255).all()


def test_pictures_stand_beside_the_maps_of_each_model(named, tmp_path):
    picture = np.zeros((40, 60, 3), np.uint8)
    figure = draw_named_clusters(
        [picture] * 2, [[named, named]] * 2, ["k = 3", "again"], "of a test"
    )
    assert [axes.get_title() for axes in figure.axes] == ["picture", "k = 3", "again", "", "", ""]
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts == [[], ["sky", "ship"], ["sky", "ship"]] * 2
    save_figure(figure, tmp_path / "x.png")
    assert Image.open(tmp_path / "x.png").width == 780


def test_prompts_and_names_share_a_plane():
    prompts, names = np.random.rand(3, 2), np.random.rand(2, 2)
    (axes,) = draw_prompt_map(prompts, names, ["sofa, couch", "sea"], "of a test").axes
    assert [text.get_text() for text in axes.texts] == ["0", "1", "2", "sofa", "sea"]
    shown = [points.get_offsets() for points in axes.collections]
    np.testing.assert_allclose(shown[0], names)
    np.testing.assert_allclose(shown[1], prompts)


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
def test_words_do_not_cover_the_prompt_beside_them(prompt):
    prompts = np.array([prompt, (9.0, 9.0)])
    (axes,) = draw_prompt_map(prompts, np.zeros((1, 2)), ["sea"]).axes
    word = axes.texts[-1]
    assert word.get_ha() == ("right" if prompt[0] > 0 else "left")
    assert word.get_va() == ("top" if prompt[1] > 0 else "bottom")
