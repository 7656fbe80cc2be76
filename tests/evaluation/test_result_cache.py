import json
import math
import shutil

import pytest
import torch
from detectron2.data import DatasetCatalog
from torch import nn

from pixelclip.evaluation.result_cache import (
    DatasetResult,
    hash_data,
    hash_weights,
    load_result,
    make_fingerprint,
    save_result,
)
from pixelclip.evaluation.timed_inference import Speed

from .conftest import NAMES
from .labeled_sets import make_labels, register_labeled_set, remove_labeled_set

RESULT = DatasetResult({"sem_seg": {"mIoU": 12.5, "IoU-ship": math.nan}}, 3, Speed(2.0, 2, 1))


def fingerprint(**changes):
    parts = {"weights": "w", "settings": {"a": (1, 2)}, "vocabulary": {"names": ["x"]}, "data": "d"}
    return make_fingerprint(**{**parts, **changes})


def test_a_result_comes_back_as_it_was(tmp_path):
    folder = str(tmp_path / "new")
    save_result(folder, "a/b", fingerprint(), RESULT)
    loaded = load_result(folder, "a/b", fingerprint())
    assert loaded.metrics["sem_seg"]["mIoU"] == 12.5
    assert math.isnan(loaded.metrics["sem_seg"]["IoU-ship"])
    assert (loaded.num_images, loaded.speed) == (3, Speed(2.0, 2, 1))


def test_null_of_former_versions_is_nan_but_not_as_a_speed(tmp_path):
    save_result(str(tmp_path), "set", fingerprint(), RESULT)
    text = (tmp_path / "set.json").read_text()
    (tmp_path / "set.json").write_text(text.replace("NaN", "null").replace("2.0", "null"))
    loaded = load_result(str(tmp_path), "set", fingerprint())
    assert math.isnan(loaded.metrics["sem_seg"]["IoU-ship"])
    assert loaded.speed == Speed(None, 2, 1)


@pytest.mark.parametrize(
    "change",
    [{"weights": "v"}, {"settings": {"a": (1, 3)}}, {"vocabulary": {"names": []}}, {"data": "e"}],
)
def test_another_fingerprint_takes_nothing_and_says_what_differs(tmp_path, caplog, change):
    save_result(str(tmp_path), "set", fingerprint(), RESULT)
    with caplog.at_level("INFO"):
        assert load_result(str(tmp_path), "set", fingerprint(**change)) is None
    assert f"of other {next(iter(change))}." in caplog.text


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"fingerprint": {}}', '{"fingerprint": 3}']
)
def test_a_file_that_is_not_a_result_is_not_taken(tmp_path, caplog, content):
    (tmp_path / "set.json").write_text(content)
    assert load_result(str(tmp_path), "set", fingerprint()) is None
    assert "is not a stored result" in caplog.text


@pytest.mark.parametrize("key", ["metrics", "num_images", "speed"])
def test_a_result_that_lost_a_part_is_not_taken(tmp_path, key):
    save_result(str(tmp_path), "set", fingerprint(), RESULT)
    content = json.loads((tmp_path / "set.json").read_text())
    content[key] = "corrupt"
    (tmp_path / "set.json").write_text(json.dumps(content))
    assert load_result(str(tmp_path), "set", fingerprint()) is None


def test_nothing_stored_is_nothing_to_say(tmp_path, caplog):
    assert load_result(str(tmp_path), "set", fingerprint()) is None
    assert not caplog.text


def test_weights_are_told_apart_by_name_type_shape_and_value():
    def model(name="weight", value=1.0, shape=(2, 3), dtype=torch.float32):
        module = nn.Module()
        module.register_buffer(name, torch.full(shape, value).to(dtype))
        return module

    variants = [
        model(),
        model(name="bias"),
        model(value=1.0000001),
        model(shape=(3, 2)),
        model(dtype=torch.bfloat16),
        model(shape=()),
        model(shape=(0,)),
        model(dtype=torch.bool),
    ]
    assert len({hash_weights(variant) for variant in variants}) == len(variants)
    assert hash_weights(model()) == hash_weights(model())


def test_what_only_training_needs_does_not_count_among_the_weights():
    model = nn.ModuleDict({"image_encoder": nn.Linear(2, 3)})
    expected = hash_weights(model)
    model.update({"teacher": nn.Linear(2, 3), "mask_decoder": nn.Linear(1, 1)})
    assert hash_weights(model) == expected


def test_data_are_the_same_in_another_folder(labeled_sets, tmp_path):
    before = hash_data(NAMES[0])
    records = DatasetCatalog.get(NAMES[0])
    shutil.copytree(tmp_path / NAMES[0], tmp_path / "elsewhere")
    moved = [
        {key: path.replace(NAMES[0], "elsewhere", 1) for key, path in record.items()}
        for record in records
    ]
    DatasetCatalog.register("moved", lambda: moved)
    assert hash_data("moved") == before
    DatasetCatalog.remove("moved")


@pytest.mark.parametrize("change", ["label", "image", "fewer", "masks"])
def test_changed_data_are_other_data(tmp_path, change):
    labels = make_labels(0)
    register_labeled_set(tmp_path, "changing", labels)
    masks = tmp_path / "masks"
    masks.mkdir()
    before = hash_data("changing", masks)
    records = DatasetCatalog.get("changing")
    if change == "label":
        shutil.copy(records[1]["sem_seg_file_name"], records[0]["sem_seg_file_name"])
    elif change == "image":
        with open(records[0]["file_name"], "ab") as file:
            file.write(b"more")
    elif change == "fewer":
        records.pop()
    else:
        (masks / "changing_0.json").write_text("{}")
    assert hash_data("changing", masks) != before
    remove_labeled_set("changing")
