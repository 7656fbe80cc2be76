"""Models as folders and on the hub, whose protocol a server on this machine speaks."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save, save_file

from pixelclip import PixelCLIP, Predictor
from pixelclip.checkpoint import PixelCLIPCheckpointer, fetch_weights
from pixelclip.checkpoint.saved_config import dump_config
from pixelclip.engine import Trainer
from pixelclip.inference.files import PredictionSettings, predict_files

from ..checkpoint.hub_server import HubServer
from ..checkpoint.test_checkpointer import Payload
from ..checkpoint.test_model_zoo import use_hub
from ..conftest import make_tiny_config

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the hub's

NAMES = ["sky", "sofa, couch", "traffic light"]
NAME = "someone/rooms"
FILES = {"README.md", "config.yaml", "model.safetensors"}
CPU = ("MODEL.DEVICE", "cpu")


@pytest.fixture
def image():
    return torch.randint(0, 256, (3, 50, 70), generator=torch.Generator().manual_seed(0))


def save_checkpoint(cfg, folder, seed=0):
    """A checkpoint of a training, with its config."""
    torch.manual_seed(seed)
    cfg.INPUT.MIN_SIZE_TEST = 64
    cfg.DATASETS.TRAIN = ("sa1b_train",)
    checkpointer = PixelCLIPCheckpointer(PixelCLIP(cfg), str(folder), config=dump_config(cfg))
    checkpointer.save("model_0000199", iteration=199)
    return str(folder / "model_0000199.pth")


@pytest.fixture(scope="module")
def checkpoint(tiny_vit_json, tmp_path_factory):
    return save_checkpoint(make_tiny_config(tiny_vit_json), tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def shared_predictor(checkpoint):
    return Predictor.from_pretrained(checkpoint, CPU)


@pytest.fixture
def predictor(shared_predictor, monkeypatch):
    """With a config for changes; tests may change its weights, too."""
    monkeypatch.setattr(shared_predictor, "_config", shared_predictor._config.clone())
    return shared_predictor


@pytest.fixture(scope="module")
def saved(shared_predictor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "rooms"
    shared_predictor.save_pretrained(folder)
    return folder


@pytest.fixture
def rooms(saved, tmp_path):
    """A saved model, for changes."""
    return Path(shutil.copytree(saved, tmp_path / "rooms"))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub without repositories, an empty cache, and a token for it."""
    with HubServer(tmp_path / "served") as server:
        use_hub(monkeypatch, server.address, tmp_path / "home")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_of_the_tests")
        yield server


def contents(folder):
    return {path.name for path in Path(folder).iterdir()}


@pytest.mark.parametrize(
    "tiny_config_of_each",
    ["vit", pytest.param("convnext", marks=pytest.mark.slow)],
    indirect=True,
)
def test_a_folder_predicts_the_same_from_anywhere(tiny_config_of_each, tmp_path, image):
    """Without the JSON file of the architecture, which the folder's config holds."""
    predictor = Predictor.from_pretrained(save_checkpoint(tiny_config_of_each, tmp_path))
    predictor.save_pretrained(tmp_path / "rooms")
    assert contents(tmp_path / "rooms") == FILES
    stored = load_file(tmp_path / "rooms" / "model.safetensors")
    assert not any(name.startswith(("teacher.", "mask_decoder.")) for name in stored)
    text = (tmp_path / "rooms" / "config.yaml").read_text()
    architecture = tiny_config_of_each.MODEL.CLIP.ARCH
    assert str(tmp_path) not in text and os.path.dirname(architecture) not in text
    again = Predictor.from_pretrained(tmp_path / "rooms", CPU)
    assert torch.equal(again(image, NAMES).similarity, predictor(image, NAMES).similarity)
    assert (again.min_size, again.max_size) == (predictor.min_size, predictor.max_size)
    again.save_pretrained(tmp_path / "copy")
    assert yaml.safe_load((tmp_path / "copy" / "config.yaml").read_text()) == yaml.safe_load(text)


@pytest.mark.slow
def test_predictions_are_repeated_with_other_weights_of_a_folder(rooms, tmp_path, image):
    Image.fromarray(image.byte().permute(1, 2, 0).numpy()).save(tmp_path / "photo.png")
    settings = PredictionSettings(NAMES, tmp_path / "out", weights=str(rooms), overrides=CPU)
    reports = [predict_files([tmp_path / "photo.png"], settings) for _ in range(2)]
    weights = load_file(rooms / "model.safetensors")
    content = save({name: 2 * value for name, value in weights.items()})
    (rooms / "model.safetensors").write_bytes(content)
    reports.append(predict_files([tmp_path / "photo.png"], settings))
    assert [(report.written, report.kept) for report in reports] == [(1, 0), (0, 1), (1, 0)]


def card_of(folder):
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    return card.data, card.text


def test_the_card_says_what_is_known(predictor, tmp_path):
    predictor.save_pretrained(tmp_path / "rooms", license="cc-by-4.0")
    data, text = card_of(tmp_path / "rooms")
    assert (data.license, data.pipeline_tag) == ("cc-by-4.0", "image-segmentation")
    assert (data.library_name, data.base_model, data.eval_results) == ("pixelclip", None, None)
    assert "Images of `sa1b_train` with its masks, 16 per iteration" in text
    assert "iterations planned, 200 done" in text
    assert "None are stored for these weights and this configuration." in text
    assert "These weights: cc-by-4.0" in text and "at the start: unknown" in text
    assert 'Predictor.from_pretrained("rooms")' in text


@pytest.mark.parametrize(
    ("architecture", "tag", "repository", "license_text"),
    [
        ("ViT-B-16-quickgelu", "openai", "timm/vit_base_patch16_clip_224.openai", "MIT, as OpenAI"),
        (
            "convnext_base_w_320",
            "laion_aesthetic_s13b_b82k",
            "laion/CLIP-convnext_base_w_320-laion_aesthetic-s13B-b82K",
            "MIT, as their model card",
        ),
        ("ViT-B-32", "laion2b_s34b_b79k", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "unknown"),
        ("ViT-B-16-quickgelu", "/of/mine.pt", None, "unknown"),
    ],
)
def test_the_card_names_the_weights_at_the_start(
    predictor, architecture, tag, repository, license_text, tmp_path
):
    predictor._config.MODEL.CLIP.ARCH = architecture
    predictor._config.MODEL.CLIP.PRETRAINED = tag
    predictor.save_pretrained(tmp_path / "rooms")
    data, text = card_of(tmp_path / "rooms")
    assert data.base_model == repository
    assert f"at the start: {license_text}" in text
    assert "/of" not in (tmp_path / "rooms" / "config.yaml").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("tiny_config_of_each", ["vit"], indirect=True)
def test_the_card_has_the_results_of_these_weights_only(train_config, tmp_path):
    train_config.TEST.EVAL_PERIOD = 2
    trainer = Trainer(train_config)
    trainer.train()
    output = Path(train_config.OUTPUT_DIR)
    stored = json.loads((output / "evaluation" / "three_images_sem_seg.json").read_text())
    Predictor.from_pretrained(output / "model_final.pth", CPU).save_pretrained(tmp_path / "final")
    data, text = card_of(tmp_path / "final")
    expected = stored["metrics"]["sem_seg"]["mIoU"]
    assert [result.metric_value for result in data.eval_results] == [expected]
    assert f"| three_images_sem_seg | 3 | {round(expected, 2)} |" in text
    assert "4 iterations planned, 4 done" in text
    Predictor.from_pretrained(output / "model_0000001.pth", CPU).save_pretrained(tmp_path / "early")
    data, text = card_of(tmp_path / "early")
    assert data.eval_results is None and "2 done" in text


def test_clip_as_it_is_has_no_training(tmp_path):
    Predictor.from_pretrained("toy", CPU).save_pretrained(tmp_path / "toy_model")
    data, text = card_of(tmp_path / "toy_model")
    assert "Not trained by PixelCLIP" in text and "MIT, as the package" in text


def test_what_cannot_be_saved_is_refused_before(predictor, tiny_model, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "own.txt").write_text("own")
    with pytest.raises(FileExistsError, match="choose another folder"):
        predictor.save_pretrained(tmp_path / "full")
    with pytest.raises(ValueError, match="made of a model"):
        Predictor(tiny_model).save_pretrained(tmp_path / "rooms")
    predictor._config.MODEL.CLIP.ARCH = "pixelclip/toy/assets/toy_clip.json"
    with pytest.raises(ValueError, match="names files or addresses"):
        predictor.save_pretrained(tmp_path / "rooms")
    assert contents(tmp_path / "full") == {"own.txt"}
    assert not [path for path in tmp_path.iterdir() if "rooms" in path.name]


def test_pushed_and_pulled_it_predicts_the_same(hub, predictor, image):
    url = predictor.push_to_hub(NAME, license="mit")
    assert url.startswith(f"{hub.address}/{NAME}/commit/") and hub.commits == 1
    assert contents(hub.folder / NAME) == FILES
    (hub.folder / NAME / "pytorch_model.bin").write_bytes(b"a pickle")
    again = Predictor.from_pretrained(NAME, CPU)
    assert torch.equal(again(image, NAMES).similarity, predictor(image, NAMES).similarity)
    pulled = {r.path.rpartition("/")[2] for r in hub.requests if r.method == "GET"}
    assert pulled & (FILES | {"pytorch_model.bin"}) == {"config.yaml", "model.safetensors"}
    assert f'from_pretrained("{NAME}")' in (hub.folder / NAME / "README.md").read_text()


@pytest.mark.parametrize("form", [NAME, f"hf://{NAME}", f"https://huggingface.co/{NAME}"])
def test_the_second_use_makes_no_request(hub, predictor, form):
    predictor.push_to_hub(NAME)
    path = fetch_weights(form)
    assert contents(Path(path).parent) == {"config.yaml", "model.safetensors"}
    hub.requests.clear()
    assert fetch_weights(form) == fetch_weights(f"hf://{NAME}@main") == path
    assert hub.requests == []


def test_weights_and_config_are_of_one_commit(hub, predictor, monkeypatch):
    """A new version is pushed between the download of the config and that of the weights."""
    predictor.push_to_hub(NAME)
    config = Path(huggingface_hub.hf_hub_download(NAME, "config.yaml"))
    predictor.push_to_hub(NAME)
    hub.requests.clear()
    assert Path(fetch_weights(NAME)).parent.name == config.parent.name
    assert {r.path for r in hub.requests if r.path.startswith(f"/{NAME}/")} == {
        f"/{NAME}/resolve/{config.parent.name}/model.safetensors"
    }


@pytest.mark.parametrize(
    "refused",
    [
        "/uploads/",
        *(pytest.param(p, marks=pytest.mark.slow) for p in ("/api/models/", "/api/repos/")),
    ],
)
def test_a_failed_upload_changes_nothing_and_can_be_repeated(hub, predictor, refused):
    predictor.push_to_hub(NAME)
    before = {path: path.read_bytes() for path in (hub.folder / NAME).iterdir()}
    hub.refused = refused
    next(predictor.model.image_encoder.parameters()).data.add_(1)
    if refused == "/api/repos/":
        (hub.folder / NAME).rename(hub.folder / "elsewhere")
    with pytest.raises(ConnectionError, match="'someone/rooms' was not uploaded"):
        predictor.push_to_hub(NAME)
    if refused == "/api/repos/":
        (hub.folder / "elsewhere").rename(hub.folder / NAME)
    assert {path: path.read_bytes() for path in (hub.folder / NAME).iterdir()} == before
    hub.refused = "nothing"
    predictor.push_to_hub(NAME)
    after = (hub.folder / NAME / "model.safetensors").read_bytes()
    assert after != before[hub.folder / NAME / "model.safetensors"]


def test_without_permission_or_a_name_it_says_so(hub, predictor):
    hub.status = 401
    with pytest.raises(ConnectionError, match="hf auth login"):
        predictor.push_to_hub(NAME)
    hub.requests.clear()
    for name, problem in (("not/a/name", "Repo id"), ("rooms", "expected 'owner/name'")):
        with pytest.raises(ValueError, match=problem):
            predictor.push_to_hub(name)
    assert hub.requests == []


@pytest.mark.parametrize("missing", ["config.yaml", "model.safetensors"])
def test_what_a_repository_lacks_is_named(hub, predictor, missing):
    predictor.push_to_hub(NAME)
    (hub.folder / NAME / missing).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no public file {missing}"):
        Predictor.from_pretrained(NAME)
    with pytest.raises(FileNotFoundError, match="'no/body' is not a file or folder here"):
        Predictor.from_pretrained("no/body")


def test_names_of_files_are_not_asked_of_the_hub(hub, tmp_path):
    with pytest.raises(FileNotFoundError, match="'output/model_final.pth' does not exist"):
        fetch_weights("output/model_final.pth")
    (tmp_path / "model_0000199.pth").touch()
    with pytest.raises(FileNotFoundError, match=r"no model.safetensors. Of .* model_0000199.pth"):
        fetch_weights(str(tmp_path))
    assert hub.requests == []


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("model.safetensors", b"", "not a checkpoint that can be read safely"),
        ("model.safetensors", b"\x10\0\0\0\0\0\0\0{}", "not a checkpoint that can be read safely"),
        ("config.yaml", b"\xff\xfe\0", "cannot be used"),
        ("config.yaml", b"MODEL: [", "cannot be used"),
        ("config.yaml", b"!!python/object/apply:os.system [ls]", "cannot be used"),
        ("config.yaml", b"MODEL: {CLIP: {ARCH: 'json:{}'}}", "it lacks"),
        ("config.yaml", b"MODEL: {CLIP: {ARCH: 'json:['}}", "not valid JSON"),
        ("config.yaml", b"MODEL: {CLIP: {ARCH: 'hf-hub:some/one'}}", "neither an open_clip"),
        ("config.yaml", b"MODEL: {META_ARCHITECTURE: GeneralizedRCNN}", "expected 'PixelCLIP'"),
    ],
)
def test_bad_files_of_strangers_are_refused(rooms, name, content, problem):
    (rooms / name).write_bytes(content)
    with pytest.raises(ValueError, match=problem):
        Predictor.from_pretrained(rooms, CPU)


def test_weights_are_never_unpickled(rooms):
    torch.save({"model": Payload()}, rooms / "model.safetensors")
    with pytest.raises(ValueError, match="SafetensorError"):
        Predictor.from_pretrained(rooms, CPU)
    save_file({"image_encoder.x": torch.zeros(1)}, rooms / "model.safetensors")
    with pytest.raises(ValueError, match="does not fit this model"):
        Predictor.from_pretrained(rooms, CPU)


@pytest.mark.parametrize(
    ("section", "setting"),
    [
        ("vision_cfg", {"timm_model_name": "hf-hub:someone/model"}),
        ("text_cfg", {"tokenizer_kwargs": {"bpe_path": "/of/mine.gz"}}),
    ],
)
def test_a_strangers_architecture_names_no_other_source(rooms, section, setting):
    content = yaml.safe_load((rooms / "config.yaml").read_text())
    clip = content["MODEL"]["CLIP"]
    described = json.loads(clip["ARCH"].removeprefix("json:"))
    described[section].update(setting)
    clip["ARCH"] = f"json:{json.dumps(described)}"
    (rooms / "config.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match="names files or addresses"):
        Predictor.from_pretrained(rooms, CPU)


@pytest.mark.slow
def test_a_killed_upload_changes_nothing(hub, predictor, rooms):
    """The process is killed while it sends the weights."""
    predictor.push_to_hub(NAME)
    before = {path: path.read_bytes() for path in (hub.folder / NAME).iterdir()}
    code = (
        "import os, huggingface_hub.lfs as lfs\n"
        "lfs._upload_single_part = lambda *_, **__: os.kill(os.getpid(), 9)\n"
        "from pixelclip import Predictor\n"
        f"Predictor.from_pretrained({str(rooms)!r}).push_to_hub({NAME!r})"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == -9, done.stderr
    assert {path: path.read_bytes() for path in (hub.folder / NAME).iterdir()} == before
    predictor.push_to_hub(NAME)
    assert hub.commits == 2
