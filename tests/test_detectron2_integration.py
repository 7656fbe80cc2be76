"""The plain Detectron2 scripts of docs/detectron2_scripts.md run as they stand, on tiny models."""

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import read_image
from PIL import Image

from pixelclip import PixelCLIP, Predictor
from pixelclip.checkpoint import PixelCLIPCheckpointer

from .conftest import SMALL_TRAINING, write_images
from .documents.check import REPOSITORY
from .documents.code_blocks import PYTHON, read_code_blocks


def read_scripts():
    """The Python blocks of the page, in their order."""
    blocks = read_code_blocks(REPOSITORY / "docs" / "detectron2_scripts.md")
    return [block.code for block in blocks if block.language == PYTHON]


@pytest.fixture
def reader(tiny_config, tmp_path, monkeypatch):
    """A folder with all that the scripts name, made small, and the config of their model."""
    tiny_config.merge_from_list([*SMALL_TRAINING, "SOLVER.MAX_ITER", 2])
    tiny_config.DATASETS.TRAIN = ("sa1b_train",)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "pixelclip_vitb16.yaml").write_text(tiny_config.dump())
    write_images(tmp_path / "images")
    (tmp_path / "images" / "sa_0.jpg").rename(tmp_path / "photo.jpg")
    (tmp_path / "images" / "sa_0.json").unlink()
    monkeypatch.setenv("SAM_DATASETS", str(tmp_path / "images"))
    for folder, mode in (("images", "RGB"), ("labels", "L")):
        (tmp_path / "data/benchmarks/rooms" / folder).mkdir(parents=True)
        Image.new(mode, (40, 30)).save(tmp_path / "data/benchmarks/rooms" / folder / "0.png")
    torch.manual_seed(0)
    PixelCLIPCheckpointer(PixelCLIP(tiny_config), str(tmp_path)).save("model")
    monkeypatch.chdir(tmp_path)
    yield tiny_config
    DatasetCatalog.pop("rooms", None)
    MetadataCatalog.pop("rooms", None)


def run(script, folder):
    variables = {"__name__": "__main__"}
    exec(compile(script.replace("/data/", f"{folder}/data/"), "a script", "exec"), variables)
    return variables


def test_detectron2_s_predictor_labels_as_ours(reader, tmp_path):
    script = read_scripts()[0]
    variables = run(script, tmp_path)
    expected = Predictor.from_config(reader, tmp_path / "model.pth")
    prediction = expected("photo.jpg", ["cat", "sofa, couch", "wall"])
    assert variables["labels"].shape == read_image("photo.jpg").shape[:2]
    assert torch.equal(variables["scores"], prediction.similarity)
    assert torch.equal(variables["labels"], prediction.labels)


def test_detectron2_s_loops_train_and_evaluate(reader, tmp_path, capsys):
    script = read_scripts()[1]
    before = torch.load(tmp_path / "model.pth", weights_only=True)["model"]
    torch.manual_seed(0)
    variables = run(script, tmp_path)
    after = variables["model"].state_dict()
    assert not torch.equal(after["class_prompts.tokens"], before["class_prompts.tokens"])
    assert "mIoU" in capsys.readouterr().out


def test_the_scripts_know_nothing_of_our_trainer():
    scripts = read_scripts()
    assert len(scripts) == 2
    for script in scripts:
        assert "pixelclip.engine.trainer" not in script
        assert "import Trainer" not in script
