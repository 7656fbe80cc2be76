"""Drawn scenes, and words for them, to begin with."""

from pathlib import Path
from typing import NamedTuple

from PIL import Image

from pixelclip.toy.scenes import CLASS_NAMES, make_scene

# Scenes of the world's test set that show several classes well.
_SEED = 13
_INDICES = (0, 1, 25, 47)
# The scenes have 96 pixels a side, too few to look at.
_SIDE = 480


class Example(NamedTuple):
    """The path of a picture, and words for it as a person types them."""

    path: str
    words: str


def write_examples(folder: Path) -> list[Example]:
    """Draw the examples into a folder."""
    examples = []
    for index in _INDICES:
        scene = make_scene(_SEED, index)
        path = folder / f"scene_{index}.png"
        picture = Image.fromarray(scene.pixels)
        picture.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).save(path)
        present = dict.fromkeys(layer.name for layer in scene.layers)
        # Two that are not there, so that something can be got wrong.
        absent = [name for name in CLASS_NAMES if name not in present][:2]
        examples.append(Example(str(path), ", ".join([*present, *absent])))
    return examples
