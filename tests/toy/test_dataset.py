"""The embedded world's data sets under their registered names."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

import pixelclip  # noqa: F401  registers the data sets
from pixelclip.toy import scene_files
from pixelclip.toy.scene_files import Split
from pixelclip.toy.scenes import CLASS_NAMES

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = ("toy_scenes_masks_train", "toy_scenes_val", "toy_scenes_test")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    counts = zip(("train", "val", "test"), (2, 3, 4), strict=True)
    splits = [Split(name, 5, count, name != "train") for name, count in counts]
    monkeypatch.setattr(scene_files, "SPLITS", splits)
    return tmp_path


def prepare(monkeypatch: pytest.MonkeyPatch, *options: str) -> object:
    """Run the prepare command, as the data sets' errors tell a user to."""
    script = str(REPOSITORY / "datasets" / "prepare_toy_scenes.py")
    monkeypatch.setattr(sys, "argv", [script, *options])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(script, run_name="__main__")
    return caught.value.code


def test_drawn_scenes_are_data_sets(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(monkeypatch, "--workers", "1") == 0
    assert "9 labels written" in capsys.readouterr().out
    train, val, test = (DatasetCatalog.get(name) for name in NAMES)
    assert (len(train), len(val), len(test)) == (2, 3, 4)
    assert len(json.loads(Path(train[0]["annotation_file_name"]).read_text())["annotations"]) > 1
    for record in (*val, *test):
        assert Path(record["file_name"]).stem == Path(record["sem_seg_file_name"]).stem
    assert not {r["file_name"] for r in val} & {r["file_name"] for r in test}


@pytest.mark.parametrize("name", NAMES[1:])
def test_labelled_scenes_have_the_worlds_classes(name: str) -> None:
    metadata = MetadataCatalog.get(name)
    assert metadata.stuff_classes == list(CLASS_NAMES)
    assert metadata.evaluator_type == "sem_seg"


@pytest.mark.parametrize("name", NAMES)
def test_scenes_that_are_not_drawn_are_an_error_with_the_command(root: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        DatasetCatalog.get(name)
    assert f"datasets/prepare_toy_scenes.py --root {root}" in str(caught.value)
