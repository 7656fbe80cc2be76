"""The command line of the check of data sets: names, description files, exit codes."""

import json
from pathlib import Path

import check_datasets
import pytest
from cli import run
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from pixelclip.data.dataset_check import DATASETS


@pytest.fixture
def description(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Path:
    """A description file of one image with its label, below the root of the environment."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    for folder, mode in (("images", "RGB"), ("labels", "L")):
        (tmp_path / folder).mkdir()
        Image.new(mode, (4, 3)).save(tmp_path / folder / "a.png")
    content = {"name": "own_for_tool", "images": "images", "labels": "labels", "classes": ["x"]}
    path = tmp_path / "own.json"
    path.write_text(json.dumps(content))

    def remove() -> None:
        DatasetCatalog.pop("own_for_tool", None)
        MetadataCatalog.pop("own_for_tool", None)

    request.addfinalizer(remove)
    return path


def test_the_exit_code_says_whether_all_are_usable(
    description: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ["--root", str(description.parent)]
    assert check_datasets.main([str(description), "--deep", *root]) == 0
    assert check_datasets.main([str(description), "ade20k_150_test_sem_seg", *root]) == 1
    output = capsys.readouterr().out
    assert "own_for_tool" in output
    assert "error: ade20k_150_test_sem_seg: not found below" in output


def test_all_data_sets_are_checked_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    monkeypatch.setenv("SAM_DATASETS", "")
    assert check_datasets.main([]) == 1
    output = capsys.readouterr().out
    assert all(f"\n{name} " in output for name in DATASETS)


@pytest.mark.parametrize("argument", ["nowhere", "nowhere.yaml"])
def test_what_cannot_be_checked_is_refused(
    argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(check_datasets.main, [argument]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert argument in captured.err
