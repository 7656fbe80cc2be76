import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from pixelclip.data.sa1b_files import FoundMask, write_sa1b_annotation
from pixelclip.mask_generation.summary import MaskSummary, Outcome, write_contact_sheet
from tests.data.sa1b_files import random_masks

from .drawings import draw_regions


@pytest.mark.parametrize("count", [0, 1, 5])
def test_coverage_is_the_share_of_the_union(tmp_path, count):
    masks = random_masks(1, count, 30, 47).astype(bool) if count else np.zeros((0, 30, 47), bool)
    path = tmp_path / "a.json"
    write_sa1b_annotation(path, "a.jpg", (30, 47), [FoundMask(mask) for mask in masks])
    outcome = Outcome.from_json(json.loads(path.read_bytes()))
    assert outcome.num_masks == count
    assert outcome.coverage == pytest.approx(masks.any(axis=0).mean())


def test_numbers_are_over_the_images_that_could_be_read():
    outcomes = [
        Outcome(4, 0.5),
        Outcome(1, 1.0, was_finished=True),
        Outcome(problem="x.jpg is empty"),
        Outcome(0, 0.0),
    ]
    summary = MaskSummary.from_outcomes(outcomes, {"name": "superpixels"})
    counts = (summary.images, summary.finished_before, summary.without_masks)
    assert counts == (4, 1, 1)
    assert summary.masks_per_image == {
        "mean": pytest.approx(5 / 3), "least": 0.0, "median": 1.0, "most": 4.0
    }  # fmt: skip
    assert summary.coverage == pytest.approx(0.5)
    assert "skipped: x.jpg is empty\n4 images (1 were finished before), 1 of" in str(summary)
    stored = json.loads(json.dumps(dataclasses.asdict(summary)))
    assert stored["generator"]["name"] == "superpixels"
    assert stored["skipped"] == ["x.jpg is empty"]


def test_nothing_read_gives_zeros():
    summary = MaskSummary.from_outcomes([Outcome(problem="corrupt")], {})
    assert (summary.coverage, summary.masks_per_image["most"]) == (0, 0)


def write(folder, count, size=(120, 160)):
    images = []
    for index in range(count):
        image, masks = draw_regions(*size, seed=index)
        paths = folder / f"{index}.png", folder / f"{index}.json"
        Image.fromarray(image).save(paths[0])
        write_sa1b_annotation(paths[1], paths[0].name, size, [FoundMask(mask) for mask in masks])
        images.append(paths)
    return images


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 2, 1), (3, 4, 1), (11, 4, 4)])
def test_each_image_stands_next_to_its_masks(tmp_path, count, columns, rows):
    path = tmp_path / "sheet.png"
    write_contact_sheet(write(tmp_path, count), path)
    with Image.open(path) as sheet:
        assert sheet.width == 320 * columns
        assert sheet.height == pytest.approx(240 * rows + 30, abs=2)
        colors = sheet.convert("RGB").getcolors(2**20)
    assert len(colors) > 100


def test_masks_are_drawn(tmp_path):
    images = write(tmp_path, 1)
    write_contact_sheet(images, tmp_path / "with.png")
    one = FoundMask(draw_regions()[1][1])
    write_sa1b_annotation(images[0][1], "0.png", (120, 160), [one])
    write_contact_sheet(images, tmp_path / "other.png")
    assert (tmp_path / "with.png").read_bytes() != (tmp_path / "other.png").read_bytes()


def test_without_images_there_is_no_sheet(tmp_path):
    write_contact_sheet([], tmp_path / "sheet.png")
    assert not list(tmp_path.iterdir())
