import json
import math
import os
import pickle
from collections import Counter
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.engine import HookBase
from detectron2.utils import comm

from pixelclip.data.loader import SampleStream
from pixelclip.engine import Trainer


def make_trainer(cfg, resume=False):
    torch.manual_seed(cfg.SEED)  # what Detectron2's default_setup does in train_net.py
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    return trainer


def run(cfg, resume=False):
    trainer = make_trainer(cfg, resume)
    trainer.train()
    return trainer


def log_of(cfg):
    lines = (Path(cfg.OUTPUT_DIR) / "iterations.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_trains_logs_evaluates_and_writes_checkpoints(train_config):
    trainer = run(train_config)
    lines = log_of(train_config)
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4]
    assert all(math.isfinite(line["total_loss"]) for line in lines)
    assert all(0 < line["clusters/largest"] <= 1 for line in lines)
    assert lines[0]["lr"] > lines[-1]["lr"]
    names = {path.name for path in Path(train_config.OUTPUT_DIR).glob("*.pth")}
    assert names == {"model_0000001.pth", "model_0000003.pth", "model_final.pth"}
    assert 0 <= trainer._last_eval_results["sem_seg"]["mIoU"] <= 100


@pytest.mark.parametrize(
    "overrides", [[], ["SOLVER.AMP.ENABLED", True, "SOLVER.ACCUMULATION_STEPS", 2]]
)
def test_resumed_run_equals_the_uninterrupted_one(train_config, tmp_path, overrides):
    train_config.merge_from_list(overrides)
    whole = run(train_config)
    resumed_config = train_config.clone()
    resumed_config.OUTPUT_DIR = str(tmp_path / "interrupted")
    Path(resumed_config.OUTPUT_DIR).mkdir()
    interrupted = make_trainer(resumed_config)
    interrupted.register_hooks([StopAfter(iteration=3)])
    with pytest.raises(KeyboardInterrupt):
        interrupted.train()
    assert [line["iteration"] for line in log_of(resumed_config)] == [1, 2, 3]
    # Another seed in the config: the checkpoint's counts.
    resumed_config.SEED = 8
    resumed = run(resumed_config, resume=True)
    assert log_of(resumed_config) == log_of(train_config)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    states = [t._trainer.optimizer.state_dict()["state"] for t in (whole, resumed)]
    for index, state in states[0].items():
        assert all(torch.equal(v, states[1][index][k]) for k, v in state.items())


class StopAfter(HookBase):
    """Interrupts the training at the start of the iteration after ``iteration``."""

    def __init__(self, iteration):
        self.iteration = iteration

    def before_step(self):
        if self.trainer.iter == self.iteration:
            raise KeyboardInterrupt


def test_evaluation_of_a_checkpoint_repeats_the_results(train_config):
    trainer = run(train_config)
    train_config.MODEL.WEIGHTS = str(Path(train_config.OUTPUT_DIR) / "model_final.pth")
    train_config.SEED = 8
    fresh = make_trainer(train_config)
    assert fresh.start_iter == 0
    results = Trainer.test(train_config, fresh.model)
    expected = {k: v for k, v in trainer._last_eval_results["sem_seg"].items() if v == v}
    assert {k: v for k, v in results["sem_seg"].items() if v == v} == expected


DINO_MASKS = [
    *("MODEL.PIXELCLIP.MASK_SOURCE", "dino", "MODEL.PIXELCLIP.DINO.MODEL", "test_vit"),
    *("MODEL.PIXELCLIP.DINO.WEIGHTS", "", "MODEL.PIXELCLIP.DINO.NUM_MASKS", 5),
]


def test_dino_masks_train_on_plain_images(train_config):
    """The same as with other masks: resumed or not; and DINO is neither trained nor saved."""
    train_config.merge_from_list([*DINO_MASKS, "DATASETS.TRAIN", ("images_train",)])
    train_config.merge_from_list(["SOLVER.MAX_ITER", 2, "DATASETS.TEST", ()])
    for annotations in Path(os.environ["SAM_DATASETS"]).glob("*.json"):
        annotations.unlink()
    runs = []
    for name in ("first", "second"):
        cfg = train_config.clone()
        cfg.OUTPUT_DIR = str(Path(cfg.OUTPUT_DIR) / name)
        Path(cfg.OUTPUT_DIR).mkdir()
        runs.append((run(cfg), log_of(cfg)))
    (first, log), (second, other_log) = runs
    assert log == other_log
    assert first.storage.history("clusters/used").latest() > 0
    weights = first.model.state_dict()
    assert not any("dino" in name for name in weights)
    assert all(torch.equal(value, second.model.state_dict()[k]) for k, value in weights.items())
    saved = torch.load(Path(cfg.OUTPUT_DIR) / "model_final.pth", weights_only=True)
    assert set(saved["model"]) == set(weights)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["DATASETS.TRAIN", ("sa1b_trian",)], "'sa1b_trian'.*sa1b_train"),
        (["DATASETS.TEST", ("ade",)], "'ade'.*ade20k_150_test_sem_seg"),
        (["SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", "float16"], "float16.*bfloat16"),
        (["SOLVER.AMP.PRECISION", "half"], "'half'.*float16, bfloat16"),
        (["SOLVER.ACCUMULATION_STEPS", 0], "ACCUMULATION_STEPS is 0"),
        (["SOLVER.ACCUMULATION_STEPS", 4], "4 and SOLVER.IMS_PER_BATCH 2, on 1 processes"),
        (["MODEL.CLIP.ARCH", "ViT-B-17"], "ViT-B-17"),
        (["MODEL.CLIP.FINETUNE", "some"], "attention, full, none"),
        (["MODEL.PIXELCLIP.TEST_TEMPLATES", "none"], "imagenet_select"),
        (["DATASETS.TRAIN", ()], "DATASETS.TRAIN is empty"),
        (["DATASETS.TRAIN", ("images_train",)], "images_train.*no files of masks.*dino"),
        (["MODEL.PIXELCLIP.MASK_SOURCE", "sam"], "'sam'.*dataset, dino"),
        ([*DINO_MASKS, "MODEL.PIXELCLIP.DINO.NUM_MASKS", 0], "NUM_MASKS is 0"),
        ([*DINO_MASKS, "MODEL.PIXELCLIP.DINO.MODEL", "dino"], "no model 'dino'"),
        ([*DINO_MASKS, "MODEL.PIXELCLIP.DINO.WEIGHTS", "gone.pth"], "gone.pth' of .* are not"),
        (["SOLVER.STEP_TIME_LIMIT", 0.0], "STEP_TIME_LIMIT is 0"),
        (["SOLVER.MAX_TO_KEEP", -1], "MAX_TO_KEEP is -1"),
        (["DATALOADER.MAX_CORRUPT_FRACTION", 1.5], "MAX_CORRUPT_FRACTION is 1.5"),
        (["SOLVER.MAX_ITER", 0], "MAX_ITER is 0"),
        (["SOLVER.BASE_LR", 5e-5], "BASE_LR_END, 0.0001, is above"),
    ],
)
def test_bad_settings_are_refused_before_any_work(
    train_config, overrides, problem, monkeypatch
):
    monkeypatch.setattr(SampleStream, "__getitem__", lambda *_: pytest.fail("data read"))
    train_config.merge_from_list(overrides)
    with pytest.raises(ValueError, match=problem):
        Trainer(train_config)


def test_missing_training_data_are_named(train_config, monkeypatch, tmp_path):
    train_config.DATASETS.TEST = ()
    monkeypatch.setenv("SAM_DATASETS", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"nowhere.*SAM_DATASETS"):
        Trainer(train_config)


def test_a_training_continues_without_any_benchmark_and_says_so_once(
    train_config, monkeypatch, tmp_path, caplog
):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    monkeypatch.setattr("detectron2.utils.logger._LOG_COUNTER", Counter())
    train_config.DATASETS.TEST = ("voc_2012_test_sem_seg", "ade20k_150_test_sem_seg")
    train_config.merge_from_list(["TEST.EVAL_PERIOD", 2])
    run(train_config)
    assert len(log_of(train_config)) == 4
    said = [text for text in caplog.messages if "without evaluation" in text]
    assert len(said) == 1, "at the start, not at each of the three occasions"
    assert "`pixelclip datasets check` says what is missing" in said[0]


def test_benchmarks_that_vanish_during_a_training_do_not_stop_it(train_config, monkeypatch):
    trainer = make_trainer(train_config)
    name = train_config.DATASETS.TEST[0]
    records = DatasetCatalog.pop(name)
    DatasetCatalog.register(name, list)
    try:
        trainer.train()
    finally:
        DatasetCatalog.remove(name)
        DatasetCatalog.register(name, records)
    assert len(log_of(train_config)) == 4


def test_evaluating_in_between_does_not_change_the_training(train_config, tmp_path, monkeypatch):
    without = run(train_config)
    evaluations = []
    evaluate = Trainer.test.__func__
    counted = classmethod(lambda cls, *a: evaluations.append(1) or evaluate(cls, *a))
    monkeypatch.setattr(Trainer, "test", counted)
    evaluating = train_config.clone()
    evaluating.TEST.EVAL_PERIOD = 1
    evaluating.OUTPUT_DIR = str(tmp_path / "evaluating")
    Path(evaluating.OUTPUT_DIR).mkdir()
    other = run(evaluating)
    assert log_of(evaluating) == log_of(train_config)
    for name, value in without.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], value), name
    assert len(evaluations) == 4


def test_missing_weights_are_named_before_anything_is_built(train_config, monkeypatch):
    monkeypatch.setattr(Trainer, "build_model", lambda *_: pytest.fail("built"))
    train_config.MODEL.WEIGHTS = "nowhere.pth"
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        Trainer(train_config)


def test_labeled_sets_are_not_training_data(train_config):
    train_config.DATASETS.TRAIN = ("three_images_sem_seg",)
    with pytest.raises(ValueError, match="three_images_sem_seg.*no files of masks"):
        Trainer(train_config)


def test_processes_with_different_checkpoints_are_refused(train_config, monkeypatch):
    trainer = Trainer(train_config)
    monkeypatch.setattr(comm, "all_gather", lambda own: [own, 4] if type(own) is int else [own])
    with pytest.raises(RuntimeError, match=r"iterations \[0, 4\].*share"):
        trainer.resume_or_load(resume=False)


def test_reference_world_size_scales_both_ends_of_the_schedule(train_config):
    train_config.SOLVER.REFERENCE_WORLD_SIZE, train_config.SOLVER.IMS_PER_BATCH = 2, 4
    cfg = Trainer(train_config).cfg
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.BASE_LR_END) == (1e-4, 5e-5)


def test_loader_survives_spawned_workers(train_config):
    loader = Trainer.build_train_loader(train_config, seed=3)
    expected = next(iter(loader))
    restored = pickle.loads(pickle.dumps(loader.stream))
    for position, sample in enumerate(expected):
        assert torch.equal(restored[position]["image_strong"], sample["image_strong"])


def test_a_new_run_in_a_used_folder_warns_and_does_not_resume_from_its_checkpoints(
    train_config, caplog
):
    run(train_config)
    assert "holds checkpoints of another training" not in caplog.text
    make_trainer(train_config)
    assert "holds checkpoints of another training" in caplog.text
    # As a restart before the new run's first checkpoint does.
    assert make_trainer(train_config, resume=True).start_iter == 0
    folder = Path(train_config.OUTPUT_DIR)
    (folder / "last_checkpoint.before").rename(folder / "last_checkpoint")
    assert make_trainer(train_config, resume=True).start_iter == 4


def test_a_finished_training_says_so_when_it_is_resumed(train_config, caplog):
    run(train_config)
    train_config.SOLVER.MAX_ITER = 2
    make_trainer(train_config, resume=True)
    assert "Nothing is left to train: the checkpoint is of iteration 4" in caplog.text
