"""A picture of some photographs and their masks, to look at before training on them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pixelclip.data.image_reading import read_rgb_image
from pixelclip.data.mask_annotations import parse_mask_rles
from pixelclip.data.nearest_sampling import torch_nearest
from pixelclip.data.rle import sample_masks
from pixelclip.mask_generation.image_records import Photograph
from pixelclip.mask_generation.working_size import shrink_image
from pixelclip.utils.visualization import Picture, draw_picture_grid, overlay_masks, save_figure

_ROWS = 4
_PER_ROW = 2
# Longest side of a picture, in pixels.
_SIDE = 320
# More than so many colours cannot be told apart; the smallest masks are then left out.
_MOST_MASKS = 256


def write_contact_sheet(photographs: Sequence[Photograph], path: Path) -> None:
    """Write a PNG of up to eight photographs, evenly chosen, each beside its masks.

    Args:
        photographs: with masks; without any, no file is written.
        path: of the PNG.
    """
    if not photographs:
        return
    columns = min(_PER_ROW, len(photographs))
    count = min(_ROWS, len(photographs) // columns) * columns
    chosen = [photographs[index * len(photographs) // count] for index in range(count)]
    pictures = [picture for photograph in chosen for picture in _draw(photograph)]
    width = 2 * columns
    rows = [pictures[start : start + width] for start in range(0, len(pictures), width)]
    titles = ["photograph", "masks"] * columns
    save_figure(draw_picture_grid(rows, titles, cell_width=_SIDE / 100), path)


def _draw(photograph: Photograph) -> tuple[Picture, Picture]:
    """The photograph, and its masks in colours of their own."""
    pixels = read_rgb_image(photograph.image)
    small = shrink_image(pixels, _SIDE)
    rles = parse_mask_rles(photograph.annotation.read_bytes())
    rows, columns = (torch_nearest(pixels.shape[axis], small.shape[axis]) for axis in (0, 1))
    masks = sample_masks(rles, rows, columns)
    areas = masks.sum(axis=(1, 2))
    largest = np.argsort(-areas, kind="stable")[:_MOST_MASKS]
    return small, overlay_masks(small, masks[largest])
