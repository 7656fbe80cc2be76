"""Drawings show what they are given: colors, borders, legends and curves."""

import json

import numpy as np
import pytest
from PIL import Image

from pixelclip.utils.visualization import (
    LegendEntry,
    add_legend,
    class_colors,
    color_labels,
    draw_image_grid,
    draw_training_curve,
    overlay_labels,
    overlay_masks,
    read_iteration_log,
    save_figure,
)

RED = (250, 10, 10)
COLORS = class_colors(["sky", "sea"])


def black(height, width):
    return np.zeros((height, width, 3), np.uint8)


def is_color(image, color):
    return (image == np.array(color)).all(axis=-1)


def test_labels_get_their_classes_colors_and_void_is_white():
    colors = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    labels = np.array([[0, 1, 255], [-1, 2, 1]])
    white = [255, 255, 255]
    expected = [[[1, 2, 3], [4, 5, 6], white], [white, white, [4, 5, 6]]]
    assert color_labels(labels, colors).tolist() == expected
    assert color_labels(labels.astype(np.int64), colors).dtype == np.uint8


def test_an_overlay_goes_from_the_image_to_the_colors():
    image, labels = np.full((2, 3, 3), 100, np.uint8), np.zeros((2, 3), np.int64)
    for opacity, expected in ((0, 100), (1, 201), (0.5, 150)):
        drawn = overlay_labels(image, labels, np.full((1, 3), 201, np.uint8), opacity)
        assert (drawn == expected).all()
    assert (image == 100).all()
    with pytest.raises(ValueError, match="opacity is -1"):
        overlay_labels(image, labels, COLORS, -1)


def test_borders_lie_between_classes_only():
    labels = np.zeros((6, 8), np.int64)
    labels[:, 4:] = 1
    drawn = overlay_labels(black(6, 8), labels, COLORS, opacity=1)
    expected = np.zeros((6, 8), bool)
    expected[:, 3] = True
    assert np.array_equal(is_color(drawn, COLORS[0] // 2), expected)
    assert not overlay_labels(black(6, 8), labels, COLORS, opacity=0).any()


def test_a_clear_class_shows_the_image():
    image = np.full((6, 8, 3), 77, np.uint8)
    labels = np.zeros((6, 8), np.int64)
    labels[:, 4:] = 255
    drawn = overlay_labels(image, labels, COLORS, clear_class=255)
    assert np.array_equal(is_color(drawn, (77, 77, 77)), labels == 255)


def test_small_masks_lie_on_large_ones_with_dark_borders():
    image = np.full((20, 30, 3), 240, np.uint8)
    small, large = np.zeros((2, 20, 30), bool)
    small[8:13, 8:13] = large[4:18, 4:25] = True
    drawn = overlay_masks(image, np.stack([small, large]), opacity=1)
    assert (drawn[0, 0] == 255).all()
    assert np.array_equal(drawn[15, 20], class_colors(["0", "1"])[0])
    assert np.array_equal(drawn[10, 10], class_colors(["0", "1"])[1])
    assert (drawn[8:13, 12] == drawn[10, 10] // 2).all()
    assert (drawn[17, 4:25] == drawn[15, 20] // 2).all()
    assert np.array_equal(drawn, overlay_masks(image, np.stack([large, small]), opacity=1))


def test_no_masks_leave_a_pale_image():
    assert (overlay_masks(black(4, 5), np.zeros((0, 4, 5), bool), 0.5) == 128).all()


@pytest.mark.parametrize("size", [(1, 1), (30, 500), (200, 100), (900, 1200)])
def test_every_entry_is_drawn_below_the_image(size):
    colors = [(250, index * 8, 10) for index in range(25)]
    entries = [LegendEntry(f"class {color[1]}", color) for color in colors]
    drawn = add_legend(black(*size), entries)
    assert not drawn[: size[0], : size[1]].any()
    for color in colors:
        rows, columns = np.nonzero(is_color(drawn, color))
        assert len(rows) >= 10 * 10
        assert rows.min() > size[0]
        assert columns.max() < drawn.shape[1] - 1


def test_long_names_are_shortened_to_the_width():
    long = add_legend(black(50, 200), [LegendEntry("word " * 100, RED)])
    assert long.shape[1] == 200
    assert (long[:, -3:][50:] == 255).all()
    short = add_legend(black(50, 200), [LegendEntry("word", RED)])
    assert long.shape == short.shape


def test_no_entries_give_no_lines():
    assert add_legend(black(200, 200), []).shape[0] < 210


def test_any_letters_are_drawn():
    texts = ("кошка", "γάτα", "chat", "")
    drawn = [add_legend(black(50, 300), [LegendEntry(text, RED)]) for text in texts]
    assert len({one.tobytes() for one in drawn}) == 4


def test_an_entry_without_a_color_is_an_empty_frame():
    filled = add_legend(black(50, 300), [LegendEntry("chat", RED)])
    empty = add_legend(black(50, 300), [LegendEntry("chat", None)])
    assert np.array_equal(is_color(filled, RED), (filled != empty).any(axis=-1))
    assert (empty[is_color(filled, RED)] == 255).all()


def test_a_grid_shows_the_images_titles_and_legend(tmp_path):
    rows = [[np.full((8, 9, 3), 10 * (r + c), np.uint8) for c in range(3)] for r in range(2)]
    figure = draw_image_grid(rows, ["a", "b", "c"], {"sky": (0, 0, 255), "sea": (0, 255, 0)})
    drawn = [axes.images[0].get_array() for axes in figure.axes]
    assert all(np.array_equal(a, b) for a, b in zip(drawn, sum(rows, []), strict=True))
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "c", "", "", ""]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["sky", "sea"]
    assert legend.get_patches()[0].get_facecolor()[:3] == (0, 0, 1)
    save_figure(figure, tmp_path / "grid.png")
    assert Image.open(tmp_path / "grid.png").width == 480


def test_a_grid_has_room_for_long_names_and_a_caption():
    row = [black(40, 80)] * 2
    legend = {f"a rather long name {index}": (index, 0, 0) for index in range(7)}
    figure = draw_image_grid([row], ["a", "b"], legend, "made with no weights", cell_width=2)
    figure.draw_without_rendering()
    (drawn,) = figure.legends
    assert drawn.get_title().get_text() == "made with no weights"
    box, page = drawn.get_window_extent(), figure.bbox
    assert page.x0 <= box.x0 and box.x1 <= page.x1
    assert page.y0 <= box.y0 and box.y1 < figure.axes[0].get_window_extent().y0
    wide, low = figure.get_size_inches()
    assert wide == 4
    plain = draw_image_grid([row], ["a", "b"], caption="of no legend", cell_width=2)
    assert plain.get_size_inches()[1] < low
    assert plain.legends[0].get_title().get_text() == "of no legend"
    assert not draw_image_grid([row], ["a", "b"]).legends


@pytest.mark.parametrize("rows", [[], [[black(2, 2)]]])
def test_rows_of_another_length_are_refused(rows):
    with pytest.raises(ValueError, match="expected 2 in each"):
        draw_image_grid(rows, ["a", "b"])


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


def test_a_curve_shows_all_iterations(tmp_path):
    entries = [json.loads(line(i, 1 / i)) for i in range(1, 50)]
    figure = draw_training_curve(entries)
    raw, smooth = figure.axes[0].lines
    assert list(raw.get_ydata()) == [1 / i for i in range(1, 50)]
    assert smooth.get_ydata()[-1] == pytest.approx(sum([1 / 39, 1 / 40]) / 2)
    path = tmp_path / "training.png"
    save_figure(figure, path)
    assert Image.open(path).size == (800, 600)
