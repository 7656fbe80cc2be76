from types import SimpleNamespace

import pytest
import torch

from pixelclip.checkpoint.saved_config import dump_config
from pixelclip.engine.setup import load_config, setup

CONFIG = "configs/pixelclip_vitb16.yaml"


def run_setup(tmp_path, *overrides, config=CONFIG):
    arguments = SimpleNamespace(
        config_file=config,
        weights="",
        output="",
        opts=["OUTPUT_DIR", str(tmp_path / "output"), *overrides],
        eval_only=False,
    )
    return setup(arguments)


def test_merges_freezes_and_falls_back_to_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cfg = run_setup(tmp_path, "SOLVER.MAX_ITER", "7")
    assert (cfg.SOLVER.MAX_ITER, cfg.MODEL.DEVICE) == (7, "cpu")
    assert cfg.is_frozen()
    assert (tmp_path / "output" / "config.yaml").exists()


@pytest.fixture
def cuda_settings():
    """torch's settings of CUDA, all off, and afterwards as they were."""
    settings = [(torch.backends.cudnn, name) for name in ("benchmark", "allow_tf32")]
    settings.append((torch.backends.cuda.matmul, "allow_tf32"))
    before = [getattr(*setting) for setting in settings]
    for setting in settings:
        setattr(*setting, False)
    yield settings
    for setting, value in zip(settings, before, strict=True):
        setattr(*setting, value)


def test_cudnn_chooses_and_tf32_is_allowed_as_published(tmp_path, cuda_settings):
    run_setup(tmp_path)
    assert all(getattr(*setting) for setting in cuda_settings)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["MODEL.CLIP.ARC", "x"], "Non-existent key: MODEL.CLIP.ARC"),
        (["TEST.IMS_PER_BATCH", "0"], "TEST.IMS_PER_BATCH is 0"),
        (["--resume"], "put the flag --resume before them"),
        (["SOLVER.MAX_ITER", "1", "--num-gpus", "2"], "flag --num-gpus before"),
        (["SOLVER.MAX_ITER"], "not pairs of a key and a value"),
        (["DATASETS.TEST", "voc_2012_test_sem_seg"], "tuple of one value needs a comma"),
        (["DATASETS.TRAIN", "('sa1b_trian',)"], "sa1b_trian.*coco_2017_train_stuff_masks"),
    ],
)
def test_mistakes_on_the_command_line_are_explained(tmp_path, overrides, problem):
    with pytest.raises(ValueError, match=problem):
        run_setup(tmp_path, *overrides)
    assert not (tmp_path / "output").exists()


def test_missing_config_file_is_said(tmp_path):
    with pytest.raises(ValueError, match="Neither a --config-file nor --weights"):
        run_setup(tmp_path, config="")
    with pytest.raises(FileNotFoundError, match=r"'configs/missing\.yaml' does not exist"):
        run_setup(tmp_path, config="configs/missing.yaml")


def test_data_sets_of_a_checkpoint_s_config_need_not_be_usable(tmp_path):
    without_classes = "{name: n, images: i, labels: l, classes: gone.yaml}"
    for name, text in (("other.yaml", "a: b"), ("incomplete.yaml", without_classes)):
        (tmp_path / name).write_text(text)
    cfg = load_config("configs/demo/toy.yaml")
    names = ("gone.yaml", "other.yaml", "incomplete.yaml")
    cfg.DATASETS.SEM_SEG_FOLDERS = tuple(str(tmp_path / name) for name in names)
    content = {"model": {"a": torch.zeros(1)}, "config": dump_config(cfg)}
    torch.save(content, tmp_path / "model.pth")
    loaded = load_config(weights=str(tmp_path / "model.pth"))
    assert loaded.DATASETS.SEM_SEG_FOLDERS == ()
    assert loaded.DATASETS.TEST == cfg.DATASETS.TEST


def test_a_config_is_loaded_without_a_command_line(tmp_path):
    cfg = load_config(CONFIG, ["SOLVER.MAX_ITER", "7", "OUTPUT_DIR", str(tmp_path / "output")])
    assert cfg.SOLVER.MAX_ITER == 7
    assert not cfg.is_frozen()
    assert not (tmp_path / "output").exists()


def test_an_unknown_key_of_a_file_is_named(tmp_path):
    path = tmp_path / "other.yaml"
    path.write_text("MODEL: {NO_SUCH_KEY: 1}")
    with pytest.raises(ValueError, match=r"other\.yaml: Non-existent config key: MODEL\.NO_SUCH"):
        load_config(str(path))
