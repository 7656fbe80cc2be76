from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import CityscapesSemSegEvaluator, SemSegEvaluator
from PIL import Image

import pixelclip  # noqa: F401  (registers the data sets)
from pixelclip.evaluation import MaskClassificationEvaluator, build_evaluator

from .conftest import NAMES
from .labeled_sets import RandomSegmenter, metrics_in_numpy, predict


def evaluate(evaluator, name):
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        with Image.open(record["sem_seg_file_name"]) as label:
            width, height = label.size
        inputs = [{**record, "width": width, "height": height}]
        evaluator.process(inputs, RandomSegmenter()(inputs))
    return evaluator.evaluate()["sem_seg"]


@pytest.mark.parametrize("name", NAMES)
def test_metrics_equal_an_independent_computation(labeled_sets, tmp_path, name):
    metrics = evaluate(build_evaluator(name, str(tmp_path / "output")), name)
    labels = labeled_sets[name]
    predictions = [predict(f"{name}_{i}", label) for i, label in enumerate(labels)]
    expected = metrics_in_numpy(labels, predictions)
    assert metrics["mIoU"] == pytest.approx(expected["mIoU"])
    assert metrics["pACC"] == pytest.approx(expected["pixel accuracy"])
    assert metrics["mACC"] == pytest.approx(expected["mean accuracy"])


def test_boundaries_are_left_out_of_newer_versions(labeled_sets, tmp_path):
    evaluator = build_evaluator(NAMES[0], str(tmp_path))
    assert isinstance(evaluator, SemSegEvaluator)
    assert evaluator._compute_boundary_iou is False


@pytest.fixture
def cityscapes_root(tmp_path, monkeypatch):
    """Two images of a city in Cityscapes' layout, all 35 label ids in each."""
    from cityscapesscripts.helpers.labels import labels

    generator = np.random.default_rng(0)
    train_ids = np.full(256, 255, np.uint8)
    for label in labels:
        if label.id >= 0 and 0 <= label.trainId < 19:
            train_ids[label.id] = label.trainId
    for index in range(2):
        stem = f"city_{index:06d}_000019"
        ids = generator.permutation(np.resize(np.arange(34), 40 * 60)).reshape(40, 60)
        files = {
            f"leftImg8bit/val/city/{stem}_leftImg8bit.png": np.zeros((40, 60, 3)),
            f"gtFine/val/city/{stem}_gtFine_labelIds.png": ids,
            f"gtFine/val/city/{stem}_gtFine_instanceIds.png": ids,
            f"gtFine/val/city/{stem}_gtFine_labelTrainIds.png": train_ids[ids],
        }
        for path, pixels in files.items():
            file = tmp_path / "cityscapes" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(file)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))


def test_cityscapes_has_the_result_of_its_own_script(cityscapes_root, tmp_path, monkeypatch):
    # The script asks for a name that NumPy has removed.
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)
    name = "cityscapes_fine_sem_seg_val"
    ours, official = build_evaluator(name, str(tmp_path)), CityscapesSemSegEvaluator(name)
    for evaluator in (ours, official):
        evaluator.reset()
        for seed, record in enumerate(DatasetCatalog.get(name)):
            scores = torch.rand(19, 40, 60, generator=torch.Generator().manual_seed(seed))
            evaluator.process([record], [{"sem_seg": scores}])
    expected = official.evaluate()["sem_seg"]["IoU"]
    assert 0 < expected < 100
    assert ours.evaluate()["sem_seg"]["mIoU"] == pytest.approx(expected)


def test_mask_classification_has_its_evaluator(labeled_sets, tmp_path):
    evaluator = build_evaluator(NAMES[0], str(tmp_path), "mask_classification")
    assert isinstance(evaluator, MaskClassificationEvaluator)


def test_other_data_sets_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"coco_2017_val.*'coco'.*sem_seg"):
        build_evaluator("coco_2017_val", str(tmp_path))
    assert not list(Path(tmp_path).iterdir())


def test_other_evaluations_are_refused(labeled_sets, tmp_path):
    with pytest.raises(ValueError, match=r"'detection'.*segmentation, mask_classification"):
        build_evaluator(NAMES[0], str(tmp_path), "detection")


def test_metadata_are_not_changed(labeled_sets, tmp_path):
    before = dict(MetadataCatalog.get(NAMES[0]).as_dict())
    build_evaluator(NAMES[0], str(tmp_path))
    assert MetadataCatalog.get(NAMES[0]).as_dict() == before


def test_label_maps_count_as_their_scores_do(labeled_sets, tmp_path):
    name = NAMES[0]
    from_scores, from_labels = (build_evaluator(name, str(tmp_path)) for _ in range(2))
    from_scores.reset()
    from_labels.reset()
    for record, label in zip(DatasetCatalog.get(name), labeled_sets[name], strict=True):
        inputs = [{**record, "height": label.shape[0], "width": label.shape[1]}]
        outputs = RandomSegmenter()(inputs)
        from_scores.process(inputs, outputs)
        labels = outputs[0]["sem_seg"].argmax(dim=0).to(torch.uint8)
        from_labels.process(inputs, [{"labels": labels}])
    np.testing.assert_equal(from_labels.evaluate(), from_scores.evaluate())
    assert not list(tmp_path.glob("inference"))


def test_a_label_file_of_another_size_is_named(labeled_sets, tmp_path):
    evaluator = build_evaluator(NAMES[0], str(tmp_path))
    evaluator.reset()
    record = DatasetCatalog.get(NAMES[0])[0]
    with pytest.raises(ValueError, match=r"_0\.png has \(20, 36\) .* has \(36, 20\)"):
        evaluator.process([record], [{"labels": torch.zeros(36, 20, dtype=torch.uint8)}])


def test_a_label_that_is_not_a_class_is_named(labeled_sets, tmp_path):
    evaluator = build_evaluator(NAMES[0], str(tmp_path))
    evaluator.reset()
    record = DatasetCatalog.get(NAMES[0])[0]
    Image.fromarray(np.full((20, 36), 77, np.uint8)).save(record["sem_seg_file_name"])
    with pytest.raises(ValueError, match=r"_0\.png has the labels \[77\]"):
        evaluator.process([record], [{"labels": torch.zeros(20, 36, dtype=torch.uint8)}])
