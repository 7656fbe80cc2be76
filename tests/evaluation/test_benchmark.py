import json
import math
import shutil
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, SemSegEvaluator
from detectron2.utils.events import EventStorage
from PIL import Image

from pixelclip import PixelCLIP
from pixelclip.engine import Trainer
from pixelclip.evaluation import Benchmark, build_evaluator
from pixelclip.evaluation.benchmark import dataset_vocabulary, result_settings

from .conftest import NAMES
from .labeled_sets import (
    CLASS_NAMES,
    RandomSegmenter,
    metrics_in_numpy,
    predict,
    remove_labeled_set,
)

ABSENT = "ade20k_150_test_sem_seg"


def load(name):
    """Batches of two inputs."""
    inputs = []
    for record in DatasetCatalog.get(name):
        with Image.open(record["sem_seg_file_name"]) as label:
            inputs.append({**record, "width": label.width, "height": label.height})
    return [inputs[:2], inputs[2:]]


def run(folder, model=None, names=NAMES, **arguments):
    """Results of a random segmenter on small data sets, and the rows of the table."""
    folder = Path(folder)
    benchmark = Benchmark(names=names, folder=str(folder), **{"settings": {}, **arguments})
    results = benchmark.run(
        model or RandomSegmenter(), load, lambda name: build_evaluator(name, str(folder))
    )
    return results, json.loads((folder / "benchmark.json").read_text())["rows"]


def without_speed(rows):
    return [{k: v for k, v in row.items() if "per second" not in k} for row in rows]


def seen_sets(model):
    return list(OrderedDict.fromkeys(stem.rsplit("_", 1)[0] for stem in model.seen))


def test_the_table_equals_an_independent_computation(labeled_sets, tmp_path):
    model = RandomSegmenter()
    results, rows = run(tmp_path, model)
    for (name, labels), row in zip(labeled_sets.items(), rows, strict=True):
        predictions = [predict(f"{name}_{i}", label) for i, label in enumerate(labels)]
        for heading, expected in metrics_in_numpy(labels, predictions).items():
            assert row[heading] == pytest.approx(expected)
        assert results[name]["sem_seg"]["mIoU"] == row["mIoU"]
        assert (row["data set"], row["images"], row["images timed"]) == (name, 3, 1)
        assert row["images per second"] > 0
    assert model.vocabularies == [CLASS_NAMES] * 3


def test_a_missing_set_is_named_in_the_table(labeled_sets, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    published = {"published_row": "ViT-B/16 SA-1B"}
    model = RandomSegmenter()
    with caplog.at_level("INFO"):
        results, rows = run(tmp_path, model, (NAMES[0], ABSENT, NAMES[1]), **published)
    assert list(results) == [NAMES[0], NAMES[1]]
    missing = rows[1]
    assert missing["mIoU"] is missing["images"] is None
    assert missing["published mIoU"] == 18.7
    assert str(tmp_path / "nowhere") in missing["note"]
    assert "prepare ade20k_150" in missing["note"]
    said = [record.getMessage() for record in caplog.records]
    first_result = next(i for i, text in enumerate(said) if text.startswith("Results on"))
    assert any(ABSENT in text and "nowhere" in text for text in said[:first_result])
    assert said[-1].count((tmp_path / "benchmark.md").read_text()) == 1


def test_nothing_there_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"(?s)ade20k.*nowhere.*voc_2012.*nowhere"):
        run(tmp_path / "new", names=(ABSENT, "voc_2012_test_sem_seg"))
    assert not (tmp_path / "new").exists()


class BreaksAt(RandomSegmenter):
    def __init__(self, stem):
        super().__init__()
        self.stem = stem

    def forward(self, batched_inputs):
        outputs = super().forward(batched_inputs)
        if self.stem in self.seen:
            raise KeyboardInterrupt
        return outputs


def test_an_interrupted_evaluation_resumes(labeled_sets, tmp_path, caplog):
    _, expected = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "interrupted", BreaksAt(f"{NAMES[2]}_2"))
    assert not (tmp_path / "interrupted" / "benchmark.json").exists()
    model = RandomSegmenter()
    with caplog.at_level("INFO"):
        _, rows = run(tmp_path / "interrupted", model)
    assert seen_sets(model) == [NAMES[2]]
    assert without_speed(rows) == without_speed(expected)
    assert caplog.text.count("its result is taken from") == 2
    model = RandomSegmenter()
    results, again = run(tmp_path / "interrupted", model)
    assert (seen_sets(model), again) == ([], rows)
    assert math.isnan(results[NAMES[0]]["sem_seg"]["ACC-ship"])


@pytest.mark.parametrize("change", ["weights", "settings", "vocabulary", "data"])
def test_what_has_changed_is_evaluated_again(labeled_sets, tmp_path, change, caplog):
    run(tmp_path)
    model, settings = RandomSegmenter(), {}
    expected = list(NAMES)
    if change == "weights":
        torch.nn.init.ones_(model.weight)
    elif change == "settings":
        settings = {"a": 1}
    elif change == "vocabulary":
        del MetadataCatalog.get(NAMES[1]).stuff_classes
        MetadataCatalog.get(NAMES[1]).stuff_classes = [*CLASS_NAMES[:4], "walrus"]
        expected = [NAMES[1]]
    else:
        first, second = (r["sem_seg_file_name"] for r in DatasetCatalog.get(NAMES[1])[:2])
        shutil.copy(second, first)
        expected = [NAMES[1]]
    with caplog.at_level("INFO"):
        run(tmp_path, model, settings=settings)
    assert seen_sets(model) == expected
    assert f"another result, of other {change}." in caplog.text


def test_what_only_the_main_process_finds_counts(labeled_sets, tmp_path, monkeypatch):
    _, rows = run(tmp_path)
    from pixelclip.evaluation import benchmark

    monkeypatch.setattr(benchmark.comm, "is_main_process", lambda: False)
    stored = [benchmark.DatasetResult({"sem_seg": {"mIoU": 1.0}}, 3, None) for _ in NAMES]
    answers = iter([[{}], *[[result] for result in stored]])
    monkeypatch.setattr(benchmark.comm, "all_gather", lambda own: next(answers))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    model = RandomSegmenter()
    results, _ = run(tmp_path, model)
    assert [metrics["sem_seg"]["mIoU"] for metrics in results.values()] == [1.0] * 3
    assert not model.seen
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")} == before


def test_a_set_of_another_size_has_a_note(labeled_sets, tmp_path):
    class Official:
        num_images = (10, 11)
        prepare_command = None

    MetadataCatalog.get(NAMES[0]).benchmark = Official
    _, rows = run(tmp_path)
    assert rows[0]["note"] == "the official set has 10 or 11 images"
    assert rows[1]["note"] is None


def test_the_vocabulary_has_its_background(labeled_sets):
    MetadataCatalog.get(NAMES[0]).background_index = 2
    assert dataset_vocabulary(NAMES[0]) == {"class_names": CLASS_NAMES, "background_index": 2}
    assert dataset_vocabulary(NAMES[1])["background_index"] is None
    with pytest.raises(ValueError, match=r"'coco_2017_val_100'.*stuff_classes"):
        dataset_vocabulary("coco_2017_val_100")


@pytest.mark.parametrize(
    ("key", "value", "counts"),
    [
        ("MODEL.PIXELCLIP.TEST_TEMPLATES", "simple", True),
        ("MODEL.PIXELCLIP.TEST_FEATURE_SIZE", (9, 9), True),
        ("MODEL.CLIP.RESOLUTION", (96, 96), True),
        ("MODEL.CLIP.DENSE_PATH", "plain", True),
        ("INPUT.MIN_SIZE_TEST", 65, True),
        ("TEST.FLIP", True, True),
        ("MODEL.PIXELCLIP.TEST_MASKS", "superpixels", True),
        ("TEST.EVALUATION", "mask_classification", True),
        ("TEST.BACKGROUND_WORDS", ("wall",), True),
        ("MODEL.WEIGHTS", "w.pth", False),
        ("MODEL.CLIP.PRETRAINED", "openai", False),
        ("TEST.PUBLISHED_ROW", "ViT-B/16 DINO", False),
        ("TEST.EVAL_PERIOD", 7, False),
        ("TEST.VOCABULARY", "synonyms", False),  # the names themselves are compared
        ("INPUT.MIN_SIZE_TRAIN", (65,), False),
        ("SOLVER.MAX_ITER", 7, False),
        ("DATASETS.TEST", ("a", "b"), False),
        ("OUTPUT_DIR", "elsewhere", False),
    ],
)
def test_settings_are_those_that_change_a_result(tiny_config, key, value, counts):
    before = json.dumps(result_settings(tiny_config))
    tiny_config.merge_from_list([key, value])
    assert (json.dumps(result_settings(tiny_config)) != before) == counts


def test_synonyms_are_the_models_vocabulary_and_another_result(labeled_sets, tmp_path):
    run(tmp_path)
    metadata = MetadataCatalog.get(NAMES[0])
    metadata.vocabulary = "pascal_voc_20"
    model = RandomSegmenter()
    expected = list(dataset_vocabulary(NAMES[0], "synonyms")["class_names"])
    run(tmp_path, model, NAMES[:1], vocabulary="synonyms")
    assert model.vocabularies == [expected]
    assert any(", " in name for name in expected)


def test_the_trainer_evaluates_all_sets(test_config):
    model = PixelCLIP(test_config)
    results = Trainer.test(test_config, model)
    assert list(results) == list(NAMES)
    assert all(0 <= metrics["sem_seg"]["mIoU"] <= 100 for metrics in results.values())
    assert model.class_names == tuple(CLASS_NAMES)
    folder = Path(test_config.OUTPUT_DIR) / "evaluation"
    assert {path.stem for path in folder.iterdir()} == {*NAMES, "benchmark"}


def test_a_single_set_has_its_metrics_alone(test_config):
    test_config.DATASETS.TEST = NAMES[:1]
    assert "mIoU" in Trainer.test(test_config, PixelCLIP(test_config))["sem_seg"]


def test_a_gap_does_not_disturb_the_hooks_of_a_training(test_config, monkeypatch, tmp_path):
    from detectron2.engine.hooks import EvalHook

    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    test_config.DATASETS.TEST = (NAMES[0], ABSENT)
    model = PixelCLIP(test_config)
    hook = EvalHook(1, lambda: Trainer.test(test_config, model))
    with EventStorage() as storage:
        hook.trainer = type("Trainer", (), {"storage": storage})
        hook._do_eval()
    assert 0 <= storage.latest()[f"{NAMES[0]}/sem_seg/mIoU"][0] <= 100


def test_a_training_with_a_missing_set_says_so_at_the_start_and_continues(
    train_config, monkeypatch, tmp_path, caplog
):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    train_config.DATASETS.TEST = (*train_config.DATASETS.TEST, ABSENT)
    train_config.TEST.EVAL_PERIOD = 2
    with caplog.at_level("WARNING"):
        trainer = Trainer(train_config)
    warning = f"{ABSENT} will not be evaluated. {ABSENT}: not found below"
    assert caplog.text.count(warning) == 1
    trainer.train()
    assert caplog.text.count(warning) == 1, "not at each evaluation"
    assert list(trainer._last_eval_results) == ["three_images_sem_seg"]


def test_other_weights_take_no_old_result(test_config):
    torch.manual_seed(0)
    first = Trainer.test(test_config, PixelCLIP(test_config))
    again = PixelCLIP(test_config)
    second = Trainer.test(test_config, again)
    assert first[NAMES[0]]["sem_seg"]["mIoU"] != second[NAMES[0]]["sem_seg"]["mIoU"]


class CountImages(DatasetEvaluator):
    def reset(self):
        self.images = 0

    def process(self, inputs, outputs):
        self.images += len(inputs)

    def evaluate(self):
        return {"count": {"images": float(self.images)}}


def test_given_evaluators_are_used_and_nothing_is_stored(test_config):
    model = PixelCLIP(test_config)
    results = Trainer.test(test_config, model, [CountImages() for _ in NAMES])
    assert results == {name: {"count": {"images": 3.0}} for name in NAMES}
    assert not (Path(test_config.OUTPUT_DIR) / "evaluation" / f"{NAMES[0]}.json").exists()
    test_config.DATASETS.TEST = NAMES[:1]
    assert Trainer.test(test_config, model, CountImages()) == {"count": {"images": 3.0}}
    with pytest.raises(ValueError, match="argument 2 is longer"):
        Trainer.test(test_config, model, [CountImages(), CountImages()])


@pytest.mark.parametrize("masks", ["ground_truth", "folder"])
def test_masks_are_classified_by_config(test_config, masks, tmp_path):
    test_config.TEST.EVALUATION = "mask_classification"
    if masks == "folder":
        test_config.TEST.MASKS = masks = str(tmp_path / "masks")
        Path(masks).mkdir()
        for record in [r for name in NAMES for r in DatasetCatalog.get(name)]:
            write_left_half(Path(masks), record)
    results = Trainer.test(test_config, PixelCLIP(test_config))
    for name in NAMES:
        metrics = results[name]["mask_classification"]
        assert metrics["num_masks"] == (12 if masks == "ground_truth" else 3)
        assert 0 <= metrics["accuracy"] <= 100
        assert 0 <= results[name]["sem_seg"]["mIoU"] <= 100
    table = (Path(test_config.OUTPUT_DIR) / "evaluation" / "benchmark.md").read_text()
    assert "mask accuracy" in table


@pytest.mark.parametrize("masks", ["ground_truth", "folder"])
def test_similarity_is_averaged_in_given_masks(test_config, masks, tmp_path):
    test_config.MODEL.PIXELCLIP.TEST_MASKS = "given"
    if masks == "folder":
        test_config.TEST.MASKS = masks = str(tmp_path / "masks")
        Path(masks).mkdir()
        for record in [r for name in NAMES for r in DatasetCatalog.get(name)]:
            write_left_half(Path(masks), record)
    model = PixelCLIP(test_config)
    assert 0 <= Trainer.test(test_config, model)[NAMES[0]]["sem_seg"]["mIoU"] <= 100
    for (inputs,) in Trainer.build_test_loader(test_config, NAMES[-1]):
        labels, index_map = model.segment_labels([inputs])[0], inputs["mask_index_map"]
        assert labels.shape == index_map.shape
        assert len(index_map.unique()) == (5 if masks == "ground_truth" else 2)
        for mask in range(index_map.max() + 1):
            assert len(labels[index_map == mask].unique()) == 1


def test_given_masks_that_are_missing_are_named(test_config, tmp_path):
    test_config.MODEL.PIXELCLIP.TEST_MASKS = "given"
    test_config.TEST.MASKS = str(tmp_path)
    with pytest.raises(FileNotFoundError, match="3 of 3 images have no masks"):
        Trainer.test(test_config, PixelCLIP(test_config))


def write_left_half(folder, record):
    import pycocotools.mask

    with Image.open(record["sem_seg_file_name"]) as label:
        mask = np.zeros((label.height, label.width), np.uint8, order="F")
    mask[:, : mask.shape[1] // 2] = 1
    code = pycocotools.mask.encode(mask)
    rle = {"size": code["size"], "counts": code["counts"].decode()}
    content = json.dumps({"annotations": [{"segmentation": rle}]})
    (folder / f"{Path(record['file_name']).stem}.json").write_text(content)


@pytest.fixture
def other_sets():
    """A data set of another kind and one without class names."""
    for name in ("boxes", "nameless"):
        DatasetCatalog.register(name, lambda: [{"file_name": "a.jpg"}])
    MetadataCatalog.get("boxes").set(stuff_classes=["sky"], evaluator_type="coco")
    MetadataCatalog.get("nameless").set(evaluator_type="sem_seg")
    yield
    for name in ("boxes", "nameless"):
        remove_labeled_set(name)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["TEST.PUBLISHED_ROW", "ViT"], r"TEST\.PUBLISHED_ROW is 'ViT'"),
        (["TEST.EVALUATION", "masks"], r"TEST\.EVALUATION is 'masks'"),
        (["TEST.EVALUATION", "mask_classification", "TEST.MASKS", "nowhere"], r"TEST\.MASKS"),
        (["TEST.EVALUATION", "mask_classification", "TEST.FLIP", True], r"TEST\.FLIP"),
        (["MODEL.PIXELCLIP.TEST_MASKS", "given", "TEST.MASKS", "nowhere"], r"TEST\.MASKS"),
        (
            ["TEST.EVALUATION", "mask_classification", "MODEL.PIXELCLIP.TEST_MASKS", "sam"],
            r"TEST_MASKS is 'sam'.*set it to 'none'",
        ),
        (["DATASETS.TEST", (NAMES[0], "boxes")], "evaluator_type"),
        (["DATASETS.TEST", (NAMES[0], "nameless")], "stuff_classes"),
        (["TEST.VOCABULARY", "rich"], "'rich'.*'synonyms'"),
        (["TEST.VOCABULARY", "synonyms"], "no vocabulary with synonyms"),
    ],
)
def test_bad_settings_are_refused_before_any_image(
    test_config, other_sets, overrides, problem, monkeypatch
):
    model = PixelCLIP(test_config)
    monkeypatch.setattr(model, "score_images", lambda _: pytest.fail("an image was evaluated"))
    test_config.merge_from_list(overrides)
    with pytest.raises((ValueError, FileNotFoundError), match=problem):
        Trainer.test(test_config, model)


@pytest.mark.parametrize(
    ("overrides", "is_published"),
    [
        ([], True),
        (["TEST.FLIP", True], False),
        (["TEST.INFERENCE_MODE", "keep_aspect"], False),
        (["TEST.VOCABULARY", "synonyms"], False),
        (["MODEL.CLIP.DENSE_PATH", "naclip"], False),
        (["MODEL.PIXELCLIP.TEST_MASKS", "superpixels"], False),
        (
            ["MODEL.PIXELCLIP.TEST_MASKS", "superpixels"]
            + ["MODEL.PIXELCLIP.TEST_MASK_OVERLAP", "mean"]
            + ["MODEL.PIXELCLIP.TEST_MASK_FEATURES", "pooled_and_crop"],
            False,
        ),
    ],
)
def test_published_results_stand_next_to_the_published_protocol_only(
    tiny_config, overrides, is_published
):
    tiny_config.merge_from_list(["TEST.PUBLISHED_ROW", "ViT-B/16 SA-1B", *overrides])
    benchmark = Benchmark.from_config(tiny_config)
    assert bool(benchmark.published) == is_published
    for value in overrides[1::2]:
        assert {True: "flipped"}.get(value, str(value)) in benchmark.protocol


def test_background_settings_without_a_background_class_are_said(tiny_config, caplog):
    overrides = ["TEST.BACKGROUND_THRESHOLD", 0.2, "DATASETS.TEST", ("voc_2012_test_sem_seg",)]
    tiny_config.merge_from_list(overrides)
    Benchmark.from_config(tiny_config)
    assert "no effect on voc_2012_test_sem_seg" in caplog.text
    caplog.clear()
    tiny_config.DATASETS.TEST = ("voc_2012_21_test_sem_seg",)
    Benchmark.from_config(tiny_config)
    assert "no effect" not in caplog.text


def test_label_maps_and_batches_change_no_result(test_config):
    """Detectron2's evaluator of scores, one image at a time, against ours of labels in batches."""
    torch.manual_seed(0)
    model = PixelCLIP(test_config)
    official = [SemSegEvaluator(name) for name in NAMES]
    for evaluator in official:
        evaluator._compute_boundary_iou = False
    expected = Trainer.test(test_config, model, official)
    test_config.TEST.IMS_PER_BATCH = 2
    np.testing.assert_equal(Trainer.test(test_config, model), expected)


def test_only_labels_are_made_where_only_labels_are_needed(test_config, monkeypatch):
    model = PixelCLIP(test_config)
    monkeypatch.setattr(model, "inference", lambda _: pytest.fail("all scores were made"))
    test_config.DATASETS.TEST = NAMES[:1]
    assert 0 <= Trainer.test(test_config, model)["sem_seg"]["mIoU"] <= 100


@pytest.mark.parametrize("saves", [True, False])
def test_predictions_are_saved_when_asked_for(test_config, saves):
    test_config.DATASETS.TEST = NAMES[:1]
    test_config.TEST.SAVE_PREDICTIONS = saves
    Trainer.test(test_config, PixelCLIP(test_config))
    folder = Path(test_config.OUTPUT_DIR) / "inference" / NAMES[0]
    assert folder.exists() == saves
    if saves:
        predictions = json.loads((folder / "sem_seg_predictions.json").read_text())
        assert len({prediction["file_name"] for prediction in predictions}) == 3
