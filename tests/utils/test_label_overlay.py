"""The legend has room for what it says."""

import numpy as np
import pytest

from pixelclip.utils.label_overlay import LegendEntry, add_legend, overlay_labels
from pixelclip.utils.visualization import class_colours

RED = (250, 10, 10)


def is_colour(picture, colour):
    return (picture == np.array(colour)).all(axis=-1)


@pytest.mark.parametrize("size", [(1, 1), (30, 500), (200, 100), (900, 1200)])
def test_every_entry_is_drawn_below_the_picture(size):
    picture = np.zeros((*size, 3), np.uint8)
    colours = [(250, index * 8, 10) for index in range(25)]
    entries = [LegendEntry(f"class {colour[1]}", colour) for colour in colours]
    drawn = add_legend(picture, entries)
    assert np.array_equal(drawn[: size[0], : size[1]], picture)
    for colour in colours:
        rows, columns = np.nonzero(is_colour(drawn, colour))
        assert len(rows) >= 10 * 10
        assert rows.min() > size[0]
        assert columns.max() < drawn.shape[1] - 1


def test_long_names_are_shortened_to_the_width():
    picture = np.zeros((50, 200, 3), np.uint8)
    long = add_legend(picture, [LegendEntry("word " * 100, RED)])
    assert long.shape[1] == 200
    assert (long[:, -3:][50:] == 255).all()
    short = add_legend(picture, [LegendEntry("word", RED)])
    assert long.shape == short.shape


def test_no_entries_give_no_lines():
    drawn = add_legend(np.zeros((200, 200, 3), np.uint8), [])
    assert drawn.shape[0] < 210


def test_any_letters_are_drawn():
    picture = np.zeros((50, 300, 3), np.uint8)
    drawn = [add_legend(picture, [LegendEntry(t, RED)]) for t in ("кошка", "γάτα", "chat", "")]
    assert len({one.tobytes() for one in drawn}) == 4


def test_borders_lie_between_classes_only():
    labels = np.zeros((6, 8), np.int64)
    labels[:, 4:] = 1
    shown = overlay_labels(np.zeros((6, 8, 3), np.uint8), labels, class_colours(2), opacity=1)
    is_border = is_colour(shown, class_colours(2)[0] // 2)
    expected = np.zeros((6, 8), bool)
    expected[:, 3] = True
    assert np.array_equal(is_border, expected)
