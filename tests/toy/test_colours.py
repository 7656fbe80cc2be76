import colorsys

from pixelclip.toy.colours import COLOUR_NAMES, name_colour


def test_every_colour_has_one_of_the_names_and_every_name_a_colour():
    steps = [i / 20 for i in range(21)]
    names = {
        name_colour(colorsys.hsv_to_rgb(hue, saturation, value))
        for hue in steps
        for saturation in steps
        for value in steps
    }
    assert names == set(COLOUR_NAMES)
