import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from pixelclip.data.mask_annotations import parse_mask_rles
from pixelclip.data.sa1b_writing import FoundMask, write_sa1b_annotation
from tests.data.sa1b_files import random_masks

MASKS = random_masks(3, 5, 30, 47)


def write(tmp_path, masks, size=(30, 47)):
    path = tmp_path / "sa_7.json"
    write_sa1b_annotation(path, "sa_7.jpg", size, masks)
    return path


def test_masks_come_back_as_they_were(tmp_path):
    path = write(tmp_path, [FoundMask(mask.astype(bool)) for mask in MASKS])
    for code, mask in zip(parse_mask_rles(path.read_bytes()), MASKS, strict=True):
        assert np.array_equal(coco_mask.decode(code), mask)


def test_the_file_has_sa1bs_keys(tmp_path):
    mask = np.zeros((30, 47), bool)
    mask[3:10, 5:25] = True
    content = json.loads(write(tmp_path, [FoundMask(mask, 0.9, 0.8)]).read_text())
    described = {"image_id": "sa_7", "width": 47, "height": 30, "file_name": "sa_7.jpg"}
    assert content["image"] == described
    (annotation,) = content["annotations"]
    assert annotation["area"] == 140
    assert annotation["bbox"] == [5, 3, 20, 7]
    assert (annotation["predicted_iou"], annotation["stability_score"]) == (0.9, 0.8)
    assert annotation["segmentation"]["size"] == [30, 47]


@pytest.mark.parametrize(
    ("mask", "problem"),
    [
        (np.ones((47, 30), bool), r"mask 1 is bool of \(47, 30\).*\(30, 47\)"),
        (np.ones((30, 47), np.uint8), "mask 1 is uint8"),
        (np.zeros((30, 47), bool), "mask 1 has no pixel"),
    ],
)
def test_other_masks_are_refused_and_nothing_is_written(tmp_path, mask, problem):
    with pytest.raises(ValueError, match=problem):
        write(tmp_path, [FoundMask(np.ones((30, 47), bool)), FoundMask(mask)])
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "nowhere", [])
