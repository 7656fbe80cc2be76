import pytest
from PIL import Image

from pixelclip.data.sa1b_writing import FoundMask, write_sa1b_annotation
from pixelclip.mask_generation.contact_sheet import write_contact_sheet
from pixelclip.mask_generation.image_records import Photograph

from .drawings import draw_regions


def write(folder, count, size=(120, 160)):
    photographs = []
    for index in range(count):
        picture, masks = draw_regions(*size, seed=index)
        paths = folder / f"{index}.png", folder / f"{index}.json"
        Image.fromarray(picture).save(paths[0])
        write_sa1b_annotation(paths[1], paths[0].name, size, [FoundMask(mask) for mask in masks])
        photographs.append(Photograph(paths[0], *paths))
    return photographs


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 2, 1), (3, 4, 1), (11, 4, 4)])
def test_each_photograph_stands_beside_its_masks(tmp_path, count, columns, rows):
    path = tmp_path / "sheet.png"
    write_contact_sheet(write(tmp_path, count), path)
    with Image.open(path) as sheet:
        assert sheet.width == 320 * columns
        assert sheet.height == pytest.approx(240 * rows + 30, abs=2)
        colours = sheet.convert("RGB").getcolors(2**20)
    assert len(colours) > 100


def test_masks_are_drawn(tmp_path):
    photographs = write(tmp_path, 1)
    write_contact_sheet(photographs, tmp_path / "with.png")
    one = FoundMask(draw_regions()[1][1])
    write_sa1b_annotation(photographs[0].annotation, "0.png", (120, 160), [one])
    write_contact_sheet(photographs, tmp_path / "other.png")
    assert (tmp_path / "with.png").read_bytes() != (tmp_path / "other.png").read_bytes()


def test_without_photographs_there_is_no_sheet(tmp_path):
    write_contact_sheet([], tmp_path / "sheet.png")
    assert not list(tmp_path.iterdir())
