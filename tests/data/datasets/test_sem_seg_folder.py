"""A user's own folders: registration by Python and by description files, what is refused."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from PIL import Image

from pixelclip.data.datasets import register_sem_seg_folder, register_sem_seg_folders

CAMVID = Path(__file__).resolve().parents[3] / "configs/datasets/camvid.yaml"
NAME = "own_sem_seg"
CLASSES = ["sky", "sea", "sand, beach"]


@pytest.fixture(autouse=True)
def catalogs() -> Iterator[None]:
    """Puts the catalogs back as they were."""
    before = dict(DatasetCatalog), dict(MetadataCatalog)
    yield
    for catalog, entries in zip((DatasetCatalog, MetadataCatalog), before, strict=True):
        catalog.clear()
        catalog.update(entries)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Images of three kinds, one of them in a folder, and labels 0..2 with 9 as void."""
    images, labels = tmp_path / "photos", tmp_path / "labels"
    generator = np.random.default_rng(0)
    for name in ("b.JPG", "a.png", "sub/c.jpeg"):
        for folder in (images, labels):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(images / name)
        label = generator.choice([0, 1, 2, 9], (6, 8)).astype(np.uint8)
        Image.fromarray(label).save((labels / name).with_suffix(".png"))
    return images, labels


def _names(name: str) -> list[str]:
    return [Path(record["file_name"]).name for record in DatasetCatalog.get(name)]


def test_a_registered_folder_is_evaluated(folders: tuple[Path, Path]) -> None:
    register_sem_seg_folder(NAME, *folders, CLASSES, ignore_label=9)
    assert _names(NAME) == ["a.png", "b.JPG", "c.jpeg"]
    assert MetadataCatalog.get(NAME).stuff_classes == CLASSES
    evaluator = SemSegEvaluator(NAME, distributed=False)
    evaluator.reset()
    for record in DatasetCatalog.get(NAME):
        with Image.open(record["sem_seg_file_name"]) as image:
            label = torch.from_numpy(np.array(image).astype(np.int64))
        label[label == 9] = 0  # a prediction must be a class; void pixels do not count
        prediction = torch.nn.functional.one_hot(label, 3).permute(2, 0, 1)
        evaluator.process([record], [{"sem_seg": prediction}])
    assert evaluator.evaluate()["sem_seg"]["mIoU"] == 100


def test_relative_folders_are_below_the_root(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    register_sem_seg_folder(NAME, "photos", "labels", CLASSES)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(folders[0].parent / "nowhere"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        DatasetCatalog.get(NAME)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(folders[0].parent))
    assert len(_names(NAME)) == 3


def test_a_missing_label_is_named(folders: tuple[Path, Path]) -> None:
    register_sem_seg_folder(NAME, *folders, CLASSES)
    (folders[1] / "sub/c.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 .* sub/c\.png.*Add them there"):
        DatasetCatalog.get(NAME)


def test_the_same_again_is_no_problem_but_another_is(folders: tuple[Path, Path]) -> None:
    register_sem_seg_folder(NAME, *folders, CLASSES)
    register_sem_seg_folder(NAME, *folders, CLASSES)
    with pytest.raises(ValueError, match="another data set has this name"):
        register_sem_seg_folder(NAME, *folders, ["sky", "sea"])
    with pytest.raises(ValueError, match="another data set has this name"):
        register_sem_seg_folder("coco_2017_val", *folders, CLASSES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "expected a string"),
        ({"name": 3}, "expected a string"),
        ({"label_folder": "photos"}, "two folders"),
        ({"class_names": []}, "empty"),
        ({"class_names": "sky"}, "list or tuple"),
        ({"class_names": [str(i) for i in range(256)]}, "256 classes"),
        ({"ignore_label": 2}, "is 2; .* 3..255"),
        ({"ignore_label": 256}, "is 256; .* 3..255"),
        ({"ignore_label": "255"}, "is '255'"),
        ({"ignore_label": True}, "is True"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "name": NAME,
        "image_folder": "photos",
        "label_folder": "labels",
        "class_names": CLASSES,
    }
    with pytest.raises(ValueError, match=message):
        register_sem_seg_folder(**(arguments | change))
    assert NAME not in DatasetCatalog
    assert NAME not in MetadataCatalog


@pytest.mark.parametrize("form", ["inline", "file"])
def test_description_files(
    folders: tuple[Path, Path], form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    content = {"images": "photos", "labels": str(folders[1]), "ignore_label": 9, "name": NAME}
    content["classes"] = CLASSES if form == "inline" else "classes.json"
    (tmp_path / "own.json").write_text(json.dumps(content))
    assert register_sem_seg_folders([tmp_path / "own.json"]) == (NAME,)
    assert len(_names(NAME)) == 3
    metadata = MetadataCatalog.get(NAME)
    assert (metadata.stuff_classes, metadata.ignore_label) == (CLASSES, 9)
    assert register_sem_seg_folders([]) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got NoneType"),
        ("[1, 2]", "got list"),
        ("{", "cannot be read"),
        ("name: a\nimages: b\nlabels: c\n", "expected the keys name, images, labels, classes"),
        ("name: a\nimages: b\nlabels: c\nclasses: [x]\nignore: 3\n", "ignore;.*expected the keys"),
        ("name: 3\nimages: b\nlabels: c\nclasses: [x]\n", "name is 3"),
        ("name: a\nimages: b\nlabels: c\nclasses: [no]\n", "must be a string, got bool"),
        ("name: a\nimages: b\nlabels: c\nclasses: 7\n", "list or tuple"),
        ("name: a\nimages: b\nlabels: b\nclasses: [x]\n", "two folders"),
        ("\x00", "cannot be read"),
    ],
)
def test_a_bad_description_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"(?s)own\.yaml.*{message}"):
        register_sem_seg_folders([CAMVID, path])
    assert "a" not in DatasetCatalog


def test_missing_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml' does not exist"):
        register_sem_seg_folders([tmp_path / "nowhere.yaml"])
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    (tmp_path / "own.yaml").write_text("name: a\nimages: b\nlabels: c\nclasses: names.json\n")
    with pytest.raises(FileNotFoundError, match=r"No such file .*names\.json"):
        register_sem_seg_folders([tmp_path / "own.yaml"])


def test_camvid(copy_real: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root = copy_real("camvid")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    (name,) = register_sem_seg_folders([CAMVID])
    class_names = json.loads((root / "camvid/classes.json").read_text())
    assert MetadataCatalog.get(name).stuff_classes == class_names
    records = DatasetCatalog.get(name)
    assert len(records) == len(list((root / "camvid/images/val").iterdir()))
    for record in records[::20]:
        with Image.open(record["sem_seg_file_name"]) as image:
            assert set(np.unique(np.array(image))) <= set(range(12))
