import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from pixelclip.mask_generation.overlap import best_overlaps, measure_overlap
from pixelclip.mask_generation.superpixels import SuperpixelGenerator
from tests.data.sa1b_files import annotation_bytes, encode, image_bytes, random_masks

from . import drawings


def test_overlaps_are_those_of_the_masks():
    found, regions = random_masks(1, 6, 30, 47), random_masks(2, 4, 30, 47)
    overlaps = best_overlaps([encode(mask) for mask in found], [encode(one) for one in regions])
    expected = drawings.best_overlaps(list(found.astype(bool)), regions.astype(bool))
    np.testing.assert_allclose(overlaps, expected)
    assert best_overlaps([], [encode(one) for one in regions]).tolist() == [0] * 4


def write(folder, name, seed=0, **changes):
    image, masks = drawings.draw_regions(60, 80, seed)
    (folder / f"{name}.png").write_bytes(image_bytes(image, "PNG"))
    content = json.loads(annotation_bytes(masks.astype(np.uint8)))
    for annotation in content["annotations"]:
        annotation["segmentation"].update(changes)
    (folder / f"{name}.json").write_text(json.dumps(content))
    return image, masks


def test_a_generator_is_measured_over_a_data_set(tmp_path):
    images = [write(tmp_path, str(index), index) for index in range(3)]
    write(tmp_path, "wrong_size", size=[80, 60])
    (tmp_path / "corrupt.jpg").touch()
    (tmp_path / "corrupt.json").write_text((tmp_path / "0.json").read_text())
    report = measure_overlap(tmp_path, SuperpixelGenerator(), num_workers=1)
    assert (report.images, report.regions, report.skipped) == (3, 12, 2)
    found = [[one.mask for one in SuperpixelGenerator().generate(p)] for p, _ in images]
    overlaps = [
        drawings.best_overlaps(masks, true)
        for masks, (_, true) in zip(found, images, strict=True)
    ]
    assert report.mean_best_overlap == pytest.approx(np.mean(overlaps))
    assert report.found == np.mean(np.concatenate(overlaps) >= 0.5)
    assert report.masks_per_image == np.mean([len(masks) for masks in found])
    assert report.seconds_per_image > 0
    assert "12 regions of 3 images (2 could not be read)" in str(report)


def test_codes_that_are_lists_are_read_too(tmp_path):
    _, masks = write(tmp_path, "a")
    code = coco_mask.decode(encode(masks[1].astype(np.uint8))).ravel(order="F")
    changes = np.flatnonzero(np.diff(code, prepend=0))
    counts = np.diff([0, *changes, code.size]).tolist()
    segmentation = {"size": [60, 80], "counts": counts}
    content = {"annotations": [{"segmentation": segmentation}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    report = measure_overlap(tmp_path, SuperpixelGenerator(), num_workers=1)
    assert report.regions == 1
    assert report.mean_best_overlap > 0.8


def test_nothing_to_compare_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        measure_overlap(tmp_path, SuperpixelGenerator())
    (tmp_path / "a.jpg").touch()
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ValueError, match="None of the 1 images"):
        measure_overlap(tmp_path, SuperpixelGenerator(), num_workers=1)
