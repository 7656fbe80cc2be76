import json

import numpy as np
import pycocotools.mask
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from pixelclip.data.masks import shrink_mask
from pixelclip.evaluation.mask_regions import (
    MaskRegionsMapper,
    generated_regions,
    ground_truth_regions,
    mask_file,
    mask_folder_of,
    read_label_map,
)

from .labeled_sets import make_labels, write_labeled_image

RESOLUTION = (8, 8)


def encode(mask):
    code = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(code["size"]), "counts": code["counts"].decode()}


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(max_examples=60)
def test_shrinking_is_the_resize_of_training_and_loses_no_mask(height, width, seed, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    mask[height // 2, width // 3] = True
    small = shrink_mask(mask, RESOLUTION)
    resized = F.interpolate(torch.from_numpy(mask)[None, None].float(), RESOLUTION, mode="nearest")
    assert small.shape == RESOLUTION
    assert small.any()
    if resized.any():
        assert np.array_equal(small, resized[0, 0].bool().numpy())
    else:
        for row, column in np.argwhere(mask):
            assert small[row * 8 // height, column * 8 // width]


def test_ground_truth_regions_part_the_labeled_pixels():
    label = make_labels(0)[0].astype(np.int64)
    label[label == 255] = 5
    masks, classes, index_map = ground_truth_regions(label, 5, RESOLUTION)
    assert classes.tolist() == [0, 1, 2, 4]
    assert masks.shape == (4, *RESOLUTION)
    painted = np.append(classes.numpy(), 5)[index_map.numpy()]
    assert np.array_equal(painted, label)
    for mask, value in zip(masks, classes, strict=True):
        assert np.array_equal(mask, shrink_mask(label == value.item(), RESOLUTION))


def test_an_image_of_void_has_no_regions():
    masks, classes, index_map = ground_truth_regions(np.full((6, 9), 5), 5, RESOLUTION)
    assert masks.shape == (0, *RESOLUTION)
    assert (len(classes), set(index_map.flatten().tolist())) == (0, {-1})


@given(st.integers(0, 2**32 - 1), st.integers(0, 6))
@settings(max_examples=40)
def test_generated_regions_follow_their_rules(seed, number):
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 6, (12, 17))  # 5 is void
    full = generator.random((number, 12, 17)) < generator.random((number, 1, 1))
    masks, classes, index_map = generated_regions([encode(m) for m in full], label, 5, RESOLUTION)
    full = [mask for mask in full if mask.any()]
    assert len(masks) == len(classes) == len(full)
    for small, value, mask in zip(masks, classes, full, strict=True):
        counts = [(label[mask] == index).sum() for index in range(6)]
        assert value == counts.index(max(counts))
        assert np.array_equal(small, shrink_mask(mask, RESOLUTION))
    areas = [mask.sum() for mask in full]
    for (row, column), winner in np.ndenumerate(index_map.numpy()):
        covering = [i for i, mask in enumerate(full) if mask[row, column]]
        assert winner == min(covering, key=lambda i: areas[i], default=-1)


@pytest.fixture
def mapper(tmp_path):
    """A mapper of masks in ``tmp_path/masks``, and the record of an image of 20x36 pixels."""
    label = make_labels(0)[0]
    (tmp_path / "masks").mkdir()
    mapper = MaskRegionsMapper(
        lambda record: {"image": torch.zeros(3, 10, 18), "height": 20, "width": 36, **record},
        num_classes=5,
        ignore_label=255,
        mask_resolution=RESOLUTION,
        mask_folder=tmp_path / "masks",
    )
    return mapper, write_labeled_image(tmp_path, "one", label)


def write_masks(mapper, record, annotations):
    content = {"annotations": [{"segmentation": rle} for rle in annotations]}
    mask_file(mapper.mask_folder, record["file_name"]).write_text(json.dumps(content))


def test_generated_masks_are_read_next_to_the_image(mapper):
    mapper, record = mapper
    mask = np.zeros((20, 36), bool)
    mask[5:9] = True
    write_masks(mapper, record, [encode(mask)])
    inputs = mapper(record)
    assert inputs["file_name"] == record["file_name"]
    assert np.array_equal(inputs["mask_index_map"] == 0, mask)
    assert inputs["masks"].dtype == torch.bool


def test_a_generator_may_find_nothing(mapper):
    mapper, record = mapper
    write_masks(mapper, record, [])
    inputs = mapper(record)
    assert inputs["masks"].shape == (0, *RESOLUTION)
    assert (inputs["mask_index_map"] == -1).all()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "malformed"),
        ('{"annotations": 3}', "annotations"),
        ('{"annotations": [{"segmentation": {"size": [20, 36], "counts": [1]}}]}', "covers 1"),
        ('{"annotations": [{"segmentation": {"size": [9, 9], "counts": [81]}}]}', "9x9"),
        (None, "No such file"),
    ],
)
def test_corrupt_masks_are_named(mapper, content, problem):
    mapper, record = mapper
    if content is not None:
        mask_file(mapper.mask_folder, record["file_name"]).write_text(content)
    with pytest.raises(ValueError, match=rf"one\.json.*one\.jpg.*{problem}"):
        mapper(record)


def test_a_label_of_another_size_is_named(mapper):
    mapper, record = mapper
    Image.new("L", (36, 21)).save(record["sem_seg_file_name"])
    with pytest.raises(ValueError, match=r"one\.png.*\(21, 36\).*\(20, 36\)"):
        mapper(record)


@pytest.mark.parametrize(
    ("mode", "value", "problem"),
    [
        ("L", 5, r"\[5\]; expected 0\.\.4 or 255.*add these classes .* ignore_label"),
        ("RGB", 0, "channel"),
    ],
)
def test_what_is_not_a_label_map_is_named(tmp_path, mode, value, problem):
    path = str(tmp_path / "label.png")
    Image.new(mode, (3, 2), value).save(path)
    with pytest.raises(ValueError, match=rf"label\.png.*{problem}"):
        read_label_map(path, 5, 255)


def test_void_becomes_the_last_class(tmp_path):
    path = str(tmp_path / "label.png")
    Image.fromarray(np.array([[0, 4, 255]], np.uint8)).save(path)
    assert read_label_map(path, 5, 255).tolist() == [[0, 4, 5]]
    assert read_label_map(path, 256, 0).tolist() == [[256, 4, 255]]


def test_the_folder_of_masks_is_the_ground_truth_or_there(tmp_path):
    assert mask_folder_of("ground_truth") is None
    assert mask_folder_of(str(tmp_path)) == tmp_path
    for masks in ("", str(tmp_path / "nowhere")):
        with pytest.raises(FileNotFoundError, match=r"TEST\.MASKS is '.*ground_truth"):
            mask_folder_of(masks)
