import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import CityscapesSemSegEvaluator
from PIL import Image

from pixelclip.evaluation import build_evaluator


@pytest.fixture
def labelled(tmp_path):
    """A registered data set of two images with void pixels and a class that never occurs."""
    generator = np.random.RandomState(0)
    records, labels = [], []
    for index in range(2):
        label = generator.randint(0, 3, (20, 30)).astype(np.uint8)
        label[:4] = 255
        path = tmp_path / f"{index}.png"
        Image.fromarray(label).save(path)
        records.append({"file_name": f"{index}.jpg", "sem_seg_file_name": str(path)})
        labels.append(label)
    DatasetCatalog.register("labelled_for_evaluators", lambda: records)
    metadata = MetadataCatalog.get("labelled_for_evaluators")
    metadata.set(evaluator_type="sem_seg", ignore_label=255, stuff_classes=["a", "b", "c", "d"])
    yield records, labels
    DatasetCatalog.remove("labelled_for_evaluators")
    MetadataCatalog.remove("labelled_for_evaluators")


def test_mean_iou_equals_an_independent_computation(labelled, tmp_path):
    records, labels = labelled
    evaluator = build_evaluator("labelled_for_evaluators", str(tmp_path / "output"))
    evaluator.reset()
    predictions = []
    for record in records:
        scores = torch.rand(4, 20, 30, generator=torch.Generator().manual_seed(len(predictions)))
        scores[3] = 0  # never predicted and never there: it must not count
        evaluator.process([record], [{"sem_seg": scores}])
        predictions.append(scores.argmax(dim=0).numpy())
    result = evaluator.evaluate()["sem_seg"]
    truth, prediction = np.stack(labels), np.stack(predictions)
    valid = truth != 255
    ious = []
    for label in range(3):
        is_true, is_predicted = truth[valid] == label, prediction[valid] == label
        ious.append((is_true & is_predicted).sum() / (is_true | is_predicted).sum())
    assert result["mIoU"] == pytest.approx(100 * np.mean(ious))
    assert result["pACC"] == pytest.approx(100 * np.mean(truth[valid] == prediction[valid]))


def test_cityscapes_has_its_own_evaluator(tmp_path):
    evaluator = build_evaluator("cityscapes_fine_sem_seg_val", str(tmp_path))
    assert isinstance(evaluator, CityscapesSemSegEvaluator)


def test_other_data_sets_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"coco_2017_val.*'coco'.*sem_seg"):
        build_evaluator("coco_2017_val", str(tmp_path))
