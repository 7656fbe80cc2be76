"""ADE20K-150: label values, preparation, loading and evaluation."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from PIL import Image

from pixelclip.data.datasets.ade20k_150 import (
    ADE20K_150,
    PUBLISHED_LABEL_FOLDER,
    TRAIN_IDS,
    prepare_ade20k_150,
)
from pixelclip.data.datasets.sem_seg_benchmark import register_sem_seg_benchmark

PREPARED = ADE20K_150.label_folder


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.array(image)


def test_train_ids_are_the_values_less_one() -> None:
    assert {0: 255, **{value: value - 1 for value in range(1, 151)}} == TRAIN_IDS


def test_prepared_labels_are_the_published_ones_less_one(ade_root: Path) -> None:
    report = prepare_ade20k_150(ade_root, workers=2)
    assert (report.written, report.skipped, report.problems) == (5, 0, ())
    for published in (ade_root / PUBLISHED_LABEL_FOLDER).iterdir():
        # Detectron2's own convention: uint8 arithmetic takes 0 to 255
        expected = _read(published) - np.uint8(1)
        assert np.array_equal(_read(ade_root / PREPARED / published.name), expected)


def test_images_and_labels_without_partner_are_named(ade_root: Path) -> None:
    (ade_root / PUBLISHED_LABEL_FOLDER / "ADE_val_00000001.png").unlink()
    (ade_root / ADE20K_150.image_folder / "ADE_val_00000004.jpg").unlink()
    report = prepare_ade20k_150(ade_root, workers=1)
    assert report.written == 3
    assert len(report.problems) == 2
    assert "ADE_val_00000001.png: the label is missing" in report.problems[0]
    assert "ADE_val_00000004.jpg: the image is missing" in report.problems[1]


@pytest.mark.parametrize("value", [151, 254, 255])
def test_values_beyond_the_classes_are_refused(ade_root: Path, value: int) -> None:
    path = ade_root / PUBLISHED_LABEL_FOLDER / "ADE_val_00000003.png"
    label = _read(path)
    label[5, 7] = value
    Image.fromarray(label).save(path)
    (problem,) = prepare_ade20k_150(ade_root, workers=1).problems
    assert path.name in problem
    assert f"[{value}]" in problem
    assert not (ade_root / PREPARED / path.name).exists()


def test_a_wrong_root_is_refused_before_anything_is_written(ade_root: Path) -> None:
    wrong = ade_root / "ADEChallengeData2016"
    before = sorted(ade_root.rglob("*"))
    with pytest.raises(FileNotFoundError, match="Looked for .*images/validation.*missing"):
        prepare_ade20k_150(wrong, workers=1)
    assert sorted(ade_root.rglob("*")) == before


def test_evaluation_of_the_labels_themselves_is_perfect(
    ade_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_ade20k_150(ade_root, workers=1)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(ade_root))
    register_sem_seg_benchmark(ADE20K_150)
    evaluator = SemSegEvaluator(ADE20K_150.name, distributed=False)
    evaluator.reset()
    for record in DatasetCatalog.get(ADE20K_150.name):
        label = torch.from_numpy(_read(Path(record["sem_seg_file_name"])).astype(np.int64))
        label[label == 255] = 0  # a prediction must be a class; void pixels do not count
        prediction = torch.nn.functional.one_hot(label, 150).permute(2, 0, 1)
        evaluator.process([record], [{"sem_seg": prediction}])
    results = evaluator.evaluate()["sem_seg"]
    assert [results[name] for name in ("mIoU", "mACC", "pACC")] == [100, 100, 100]


def test_metadata_needs_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_sem_seg_benchmark(ADE20K_150)
    metadata = MetadataCatalog.get("ade20k_150_test_sem_seg")
    assert len(metadata.stuff_classes) == 150
    assert (metadata.evaluator_type, metadata.ignore_label) == ("sem_seg", 255)
    for root in ("first", "second"):
        monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / root))
        assert metadata.image_root == str(tmp_path / root / ADE20K_150.image_folder)
        assert metadata.sem_seg_root == str(tmp_path / root / PREPARED)
    monkeypatch.delenv("DETECTRON2_DATASETS")
    assert metadata.image_root == str(Path("datasets") / ADE20K_150.image_folder)


def test_the_real_layout(copy_real: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root = copy_real("ADEChallengeData2016")
    report = prepare_ade20k_150(root, workers=1)
    assert report.problems == ()
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    register_sem_seg_benchmark(ADE20K_150)
    records = DatasetCatalog.get(ADE20K_150.name)
    assert len(records) == report.written > 0
    for record in records:
        label = _read(Path(record["sem_seg_file_name"]))
        with Image.open(record["file_name"]) as image:
            assert image.size == label.shape[::-1]
        assert set(np.unique(label)) <= {*range(150), 255}
