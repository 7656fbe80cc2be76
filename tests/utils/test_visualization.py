import json

import numpy as np
import pytest
from PIL import Image

from pixelclip.utils.visualization import (
    class_colours,
    colour_labels,
    draw_picture_grid,
    draw_training_curve,
    overlay,
    overlay_masks,
    read_iteration_log,
    save_figure,
)


def line(iteration, loss=0.5):
    return json.dumps({"iteration": iteration, "total_loss": loss, "clusters/used": 0.5})


def write(tmp_path, text):
    path = tmp_path / "iterations.jsonl"
    path.write_text(text)
    return path


def test_repeated_iterations_count_once_and_a_cut_line_not(tmp_path):
    text = "\n".join([line(1), line(2, 0.4), line(3), line(2, 0.3), line(3, 0.2), '{"iter'])
    entries = read_iteration_log(write(tmp_path, text))
    assert [(e["iteration"], e["total_loss"]) for e in entries] == [(1, 0.5), (2, 0.3), (3, 0.2)]


@pytest.mark.parametrize("text", ["", "\n", line(1) + "\n[]\n" + line(2), "{}\n" + line(1)])
def test_other_files_are_refused(tmp_path, text):
    with pytest.raises(ValueError, match=r"iterations\.jsonl"):
        read_iteration_log(write(tmp_path, text))


def test_curve_is_a_picture_of_all_iterations(tmp_path):
    entries = [json.loads(line(i, 1 / i)) for i in range(1, 50)]
    figure = draw_training_curve(entries)
    raw, smooth = figure.axes[0].lines
    assert list(raw.get_ydata()) == [1 / i for i in range(1, 50)]
    assert smooth.get_ydata()[-1] == pytest.approx(sum([1 / 39, 1 / 40]) / 2)
    path = tmp_path / "training.png"
    save_figure(figure, path)
    assert Image.open(path).size == (800, 600)


@pytest.mark.parametrize("count", [1, 20, 171, 847])
def test_colours_of_classes_differ(count):
    colours = class_colours(count)
    assert colours.shape == (count, 3)
    assert colours.dtype == np.uint8
    assert len(np.unique(colours, axis=0)) == count
    assert np.array_equal(colours, class_colours(max(count, 30))[:count]), "more change none"
    apart = np.linalg.norm(colours[:20, None].astype(float) - colours[None, :20], axis=-1)
    assert apart[~np.eye(len(apart), dtype=bool)].min(initial=255) > 40


@pytest.mark.parametrize("count", [0, 10**6])
def test_too_few_or_too_many_colours_are_refused(count):
    with pytest.raises(ValueError, match="colours were asked for"):
        class_colours(count)


def test_labels_get_their_classes_colours_and_void_is_white():
    colours = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    labels = np.array([[0, 1, 255], [-1, 2, 1]])
    white = [255, 255, 255]
    expected = [[[1, 2, 3], [4, 5, 6], white], [white, white, [4, 5, 6]]]
    assert colour_labels(labels, colours).tolist() == expected
    assert colour_labels(labels.astype(np.int64), colours).dtype == np.uint8


def test_an_overlay_goes_from_the_picture_to_the_colours():
    picture, colours = np.full((2, 3, 3), 100, np.uint8), np.full((2, 3, 3), 201, np.uint8)
    assert (overlay(picture, colours, 0) == 100).all()
    assert (overlay(picture, colours, 1) == 201).all()
    assert (overlay(picture, colours, 0.5) == 150).all()
    assert (picture == 100).all()


def test_small_masks_lie_on_large_ones_with_dark_borders():
    picture = np.full((20, 30, 3), 240, np.uint8)
    small, large = np.zeros((2, 20, 30), bool)
    small[8:13, 8:13] = large[4:18, 4:25] = True
    shown = overlay_masks(picture, np.stack([small, large]), opacity=1)
    assert (shown[0, 0] == 255).all()
    inside_large, inside_small = shown[15, 20], shown[10, 10]
    assert not np.array_equal(inside_large, inside_small)
    assert (shown[8:13, 8] == inside_small // 3).all()
    assert (shown[4, 4:25] == inside_large // 3).all()
    assert np.array_equal(shown, overlay_masks(picture, np.stack([large, small]), opacity=1))


def test_no_masks_leave_a_pale_picture():
    picture = np.zeros((4, 5, 3), np.uint8)
    assert (overlay_masks(picture, np.zeros((0, 4, 5), bool), 0.5) == 128).all()


def test_a_grid_shows_the_pictures_titles_and_legend(tmp_path):
    rows = [[np.full((8, 9, 3), 10 * (r + c), np.uint8) for c in range(3)] for r in range(2)]
    figure = draw_picture_grid(rows, ["a", "b", "c"], {"sky": (0, 0, 255), "sea": (0, 255, 0)})
    shown = [axes.images[0].get_array() for axes in figure.axes]
    assert all(np.array_equal(a, b) for a, b in zip(shown, sum(rows, []), strict=True))
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "c", "", "", ""]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["sky", "sea"]
    assert legend.get_patches()[0].get_facecolor()[:3] == (0, 0, 1)
    save_figure(figure, tmp_path / "grid.png")
    assert Image.open(tmp_path / "grid.png").width == 480


def test_a_grid_has_room_for_long_names_and_a_caption(tmp_path):
    row = [np.zeros((40, 80, 3), np.uint8)] * 2
    legend = {f"a rather long name {index}": (index, 0, 0) for index in range(7)}
    figure = draw_picture_grid([row], ["a", "b"], legend, "made with no weights", cell_width=2)
    figure.draw_without_rendering()
    (drawn,) = figure.legends
    assert drawn.get_title().get_text() == "made with no weights"
    box, page = drawn.get_window_extent(), figure.bbox
    assert page.x0 <= box.x0 and box.x1 <= page.x1
    assert page.y0 <= box.y0 and box.y1 < figure.axes[0].get_window_extent().y0
    wide, low = figure.get_size_inches()
    assert wide == 4
    plain = draw_picture_grid([row], ["a", "b"], caption="of no legend", cell_width=2)
    assert plain.get_size_inches()[1] < low
    assert "of no legend" in [text.get_text() for text in plain.texts]


@pytest.mark.parametrize("rows", [[], [[np.zeros((2, 2, 3), np.uint8)]]])
def test_rows_of_another_length_are_refused(rows):
    with pytest.raises(ValueError, match="expected 2 in each"):
        draw_picture_grid(rows, ["a", "b"])
