"""Weights by name or address, from a server on this machine that speaks the hub's protocol."""

import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import huggingface_hub.utils._cache_assets as cache_assets
import pytest
import torch
import train_net

from pixelclip import PixelCLIP, Predictor
from pixelclip.checkpoint import (
    PixelCLIPCheckpointer,
    fetch_weights,
    get_model,
    list_models,
    model_zoo,
    read_checkpoint,
    register_model,
    weights_download,
)
from pixelclip.checkpoint.conversion import convert_checkpoint
from pixelclip.engine.setup import load_config
from pixelclip.modeling import clip_loader
from pixelclip.utils.installation import find_config

from ..conftest import register_test_set, unregister_test_set
from .hub_server import HubServer
from .test_checkpointer import Payload

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "hsshin98/PixelCLIP"
FILE = "weights/pixelclip_vit_base.pth"
URL = f"/{REPOSITORY}/resolve/main/{FILE}"
CONTENT = bytes(range(256)) * 40
TOY = "configs/demo/toy.yaml"


def use_hub(monkeypatch, address, home):
    """What HF_ENDPOINT and HF_HOME do, which huggingface_hub reads when it is imported."""
    constants = huggingface_hub.constants
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # it resumes at multiples of it
    monkeypatch.setattr(cache_assets, "HF_ASSETS_CACHE", str(home / "assets"))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one file, the published ViT-B/16, and an empty cache."""
    with HubServer(tmp_path / "served") as server:
        use_hub(monkeypatch, server.address, tmp_path / "home")
        serve(server, CONTENT)
        yield server


def serve(server, content):
    file = server.folder / REPOSITORY / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def transfers(server):
    """The header Range of each transfer of weights so far."""
    return [r.range for r in server.requests if r.method == "GET" and r.path.endswith(".pth")]


def files_below(folder):
    return {path for path in folder.rglob("*") if path.is_file() and path.stat().st_size}


def test_the_zoo_has_the_published_models_and_the_toy():
    assert list_models() == (*model_zoo._PUBLISHED, "toy")
    for name in list_models():
        model = get_model(name)
        assert model == get_model(f"pixelclip://{name}")
        assert Path(find_config(model.config_file)).stem in (name, "toy")
    assert get_model("toy").address == ""


def test_the_addresses_are_those_of_the_release(shared_folder):
    release = shared_folder / "facts" / "published_release.json"
    if not release.is_file():
        pytest.skip(f"needs {release.name} of the real data")
    facts = json.loads(release.read_text())["checkpoints"]
    expected = {n: f"hf://{facts['hub_repository']}/{f}" for n, f in facts["files"].items()}
    assert {n: get_model(n).address for n in model_zoo._PUBLISHED} == expected


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="'pixelclip_vitb17'.*pixelclip_vitb16, .*toy"):
        get_model("pixelclip_vitb17")
    with pytest.raises(ValueError, match="'pixelclip_vitb17'.*pixelclip_vitb16, .*toy"):
        fetch_weights("pixelclip://pixelclip_vitb17")
    with pytest.raises(FileNotFoundError, match="'pixelclip_vitb17' does not exist.*hf://owner"):
        fetch_weights("pixelclip_vitb17")
    with pytest.raises(ValueError, match="'toy' has no checkpoint.*toy.yaml"):
        fetch_weights("toy")


def test_applications_add_models(hub, monkeypatch):
    monkeypatch.setattr(model_zoo, "_MODELS", dict(model_zoo._MODELS))
    register_model("rooms", TOY, f"hf://{REPOSITORY}/{FILE}")
    assert get_model("rooms").config_file == TOY
    assert Path(fetch_weights("pixelclip://rooms")).read_bytes() == CONTENT


def test_files_and_no_weights_are_returned_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("own.pth", "pixelclip_vitb16"):  # a file goes before a name
        Path(name).write_bytes(b"own")
        assert fetch_weights(name) == name
    assert fetch_weights("") == ""


@pytest.mark.parametrize(
    "weights",
    [
        *("pixelclip_vitb16", "pixelclip://pixelclip_vitb16"),
        *(f"hf://{REPOSITORY}/{FILE}", f"hf://{REPOSITORY}@main/{FILE}"),
        f"https://huggingface.co/{REPOSITORY}/resolve/main/{FILE}?download=true",
        f"https://huggingface.co/{REPOSITORY}/blob/main/{FILE}",
    ],
)
def test_the_second_use_makes_no_request(hub, weights):
    path = fetch_weights(weights)
    assert Path(path).read_bytes() == CONTENT
    assert {r.path for r in hub.requests} <= {URL, "/api/agent-harnesses"}
    assert transfers(hub) == [""]
    hub.requests.clear()
    assert fetch_weights(weights) == path
    assert hub.requests == []


def test_a_revision_is_asked_for(hub):
    fetch_weights(f"hf://{REPOSITORY}@v2/{FILE}")
    assert hub.requests[-1].path == URL.replace("main", "v2")


def test_an_address_elsewhere_is_fetched_once(hub):
    address = f"{hub.address}/{REPOSITORY}/{FILE}"
    path = fetch_weights(address)
    assert Path(path).read_bytes() == CONTENT and Path(path).name == Path(FILE).name
    hub.requests.clear()
    assert fetch_weights(address) == path
    assert hub.requests == []


@pytest.mark.parametrize("form", ["hub", "web"])
def test_an_interrupted_transfer_continues(hub, form, tmp_path):
    hub.cut_after = 4000
    weights = {"hub": "pixelclip_vitb16", "web": f"{hub.address}/{REPOSITORY}/{FILE}"}[form]
    assert Path(fetch_weights(weights)).read_bytes() == CONTENT
    assert transfers(hub) == ["", "bytes=4000-"]
    assert not list(tmp_path.rglob("*.incomplete"))


def test_a_later_call_continues_too_and_no_half_file_has_the_final_name(hub, monkeypatch, tmp_path):
    address = f"{hub.address}/{REPOSITORY}/{FILE}"

    def break_down():
        hub.status = 503
        return 4000

    monkeypatch.setattr(hub, "take_cut", break_down)
    with pytest.raises(ConnectionError, match="503"):
        fetch_weights(address)
    (partial,) = files_below(tmp_path / "home")
    assert partial.suffix == ".incomplete" and partial.stat().st_size == 4000
    monkeypatch.undo()
    use_hub(monkeypatch, hub.address, tmp_path / "home")
    hub.status = None
    hub.requests.clear()
    assert Path(fetch_weights(address)).read_bytes() == CONTENT
    assert transfers(hub) == ["bytes=4000-"]
    partial.write_bytes(CONTENT)  # as if killed just before the renaming
    Path(fetch_weights(address)).unlink()
    assert Path(fetch_weights(address)).read_bytes() == CONTENT
    assert transfers(hub) == ["bytes=4000-"]


def test_a_failed_transfer_from_the_hub_leaves_no_file(hub, monkeypatch, tmp_path):
    def break_down():
        hub.status = 503
        return 4000

    monkeypatch.setattr(hub, "take_cut", break_down)
    with pytest.raises(ConnectionError, match="503"):
        fetch_weights("pixelclip_vitb16")
    assert not list((tmp_path / "home").rglob("*.pth"))
    assert not [path for path in files_below(tmp_path / "home") if path.stat().st_size > 1000]


def test_another_version_is_not_continued(hub, monkeypatch, tmp_path):
    address = f"{hub.address}/{REPOSITORY}/{FILE}"
    path = Path(fetch_weights(address))
    path.with_name(f"{path.name}.0123456789abcdef.incomplete").write_bytes(b"of another version")
    path.unlink()
    assert Path(fetch_weights(address)).read_bytes() == CONTENT


def test_a_server_that_allows_only_to_download(hub, monkeypatch):
    """It says no size, so that what an earlier call left behind is not continued."""
    monkeypatch.setattr(hub, "allows_head", False)
    address = f"{hub.address}/{REPOSITORY}/{FILE}"
    path = Path(fetch_weights(address))
    path.with_name(f"{path.name}.unknown.incomplete").write_bytes(CONTENT)
    path.unlink()
    assert Path(fetch_weights(address)).read_bytes() == CONTENT
    assert transfers(hub) == ["", ""]


@pytest.mark.parametrize("form", ["hub", "web"])
def test_of_several_that_ask_one_downloads(hub, form):
    weights = {"hub": "pixelclip_vitb16", "web": f"{hub.address}/{REPOSITORY}/{FILE}"}[form]
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(fetch_weights, [weights] * 4))
    assert len(paths) == 1 and transfers(hub) == [""]


def test_a_file_that_the_server_lacks_is_named(hub):
    with pytest.raises(FileNotFoundError) as error:
        fetch_weights("pixelclip_convnextb")
    message = str(error.value)
    assert f"{hub.address}/{REPOSITORY}/resolve/main/weights/pixelclip_convnext_base" in message
    assert f"{REPOSITORY} has no public file weights/pixelclip_convnext_base.pth" in message
    with pytest.raises(FileNotFoundError, match="nobody/nothing has no public file x.pth"):
        fetch_weights("hf://nobody/nothing/x.pth")
    with pytest.raises(FileNotFoundError, match=r"/nowhere\.pth cannot be downloaded.*404"):
        fetch_weights(f"{hub.address}/nowhere.pth")


def explains_what_to_do(error):
    """Whether an error is one sentence with the address, a place for the file and the option."""
    message = str(error.value)
    assert "\n" not in message and ". " not in message and message.endswith(".")
    assert URL in message and "to weights/pixelclip_vit_base.pth" in message
    assert "--weights" in message and "MODEL.WEIGHTS" in message
    return True


def test_without_network_the_remedy_is_named(hub, monkeypatch):
    hub.status = 503
    with pytest.raises(ConnectionError, match="503") as error:
        fetch_weights("pixelclip_vitb16")
    assert explains_what_to_do(error)
    assert [r.method for r in hub.requests if r.path == URL] == ["HEAD"]  # without retries
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    use_hub(monkeypatch, address, hub.folder / "home")
    with pytest.raises(ConnectionError, match="refused") as error:
        fetch_weights("pixelclip_vitb16")
    assert explains_what_to_do(error)


def test_offline_says_so_without_a_request_and_uses_the_cache(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="offline mode is enabled") as error:
        fetch_weights("pixelclip_vitb16")
    assert explains_what_to_do(error)
    with pytest.raises(ConnectionError, match=r"/own\.pth.*offline mode is enabled"):
        fetch_weights(f"{hub.address}/own.pth")
    assert hub.requests == []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    path = fetch_weights("pixelclip_vitb16")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert fetch_weights("pixelclip_vitb16") == path


@pytest.mark.parametrize("form", ["hub", "web"])
def test_a_silent_server_is_given_up(form, tmp_path, monkeypatch):
    """A server that takes the connection and never answers, where the library waits minutes."""
    assert weights_download._ANSWER_LIMIT < 10
    monkeypatch.setattr(weights_download, "_ANSWER_LIMIT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        use_hub(monkeypatch, address, tmp_path)
        weights = {"hub": "pixelclip_vitb16", "web": address + URL}[form]
        # The library's own limit is as long, and one of the two comes first.
        with pytest.raises(ConnectionError, match=r"no answer within 0\.2 s|timed out") as error:
            fetch_weights(weights)
    assert explains_what_to_do(error)


def test_a_name_server_that_hangs_is_given_up(tmp_path, monkeypatch):
    use_hub(monkeypatch, "http://hub.invalid", tmp_path)
    monkeypatch.setattr(weights_download, "_ANSWER_LIMIT", 0.2)
    end = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: end.wait())
    with pytest.raises(ConnectionError, match=r"no answer within 0\.2 s") as error:
        fetch_weights("pixelclip_vitb16")
    end.set()
    assert explains_what_to_do(error)


@pytest.mark.slow
def test_the_real_hub_is_the_default():
    code = (
        "from pixelclip.checkpoint import fetch_weights\n"
        "try: fetch_weights('pixelclip_vitb16')\n"
        "except ConnectionError as error: print(error)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("HF_ENDPOINT", None)
    environment["HF_HOME"] = str(ROOT / "nowhere")
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert f"The weights https://huggingface.co{URL} could not be downloaded" in result.stdout


def content_of(data, tmp_path):
    torch.save(data, tmp_path / "content.pth")
    return (tmp_path / "content.pth").read_bytes()


@pytest.mark.parametrize("kind", ["html", "code", "truncated"])
def test_a_bad_file_is_refused_and_can_be_removed(hub, kind, tiny_model, tmp_path):
    good = content_of({"model": tiny_model.state_dict()}, tmp_path)
    bad = {
        "html": b"<html>Sign in</html>",
        "code": content_of({"model": Payload()}, tmp_path),
        "truncated": good[:10_000],
    }
    serve(hub, bad[kind])
    with pytest.raises(ValueError, match="weights_only.*Remove this file") as error:
        PixelCLIPCheckpointer(tiny_model).load("pixelclip_vitb16")
    named = Path(str(error.value).split("'")[1])
    assert named.is_file() and not named.is_symlink()
    named.unlink()
    serve(hub, good)
    PixelCLIPCheckpointer(tiny_model).load("pixelclip_vitb16")


def test_a_server_that_is_not_a_hub_is_refused(tmp_path, monkeypatch):
    """A sign-in page in the place of every address, say."""
    page = tmp_path / "served" / URL.lstrip("/")
    page.parent.mkdir(parents=True)
    page.write_text("<html>Sign in</html>")
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "served")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        use_hub(monkeypatch, f"http://127.0.0.1:{server.server_port}", tmp_path / "home")
        with pytest.raises(ConnectionError) as error:
            fetch_weights("pixelclip_vitb16")
        server.shutdown()
    assert explains_what_to_do(error)


def test_conversions_take_addresses(hub, tiny_model, tmp_path):
    serve(hub, content_of({"model": tiny_model.state_dict()}, tmp_path))
    convert_checkpoint("pixelclip_vitb16", tmp_path / "small.pth", "inference")
    assert set(read_checkpoint(str(tmp_path / "small.pth"))["model"]) < set(tiny_model.state_dict())


@pytest.fixture
def toy_weights(hub, tmp_path):
    """The hub serves a checkpoint of the toy config under the name of the published ViT-B/16."""
    model = PixelCLIP(load_config(TOY, ("MODEL.DEVICE", "cpu", "MODEL.CLIP.PRETRAINED", "")))
    serve(hub, content_of({"model": model.state_dict()}, tmp_path))
    return model.state_dict()


@pytest.fixture
def refuse_own_weights(monkeypatch):
    """CLIP's own weights, "captions" in the toy config, must not be looked for."""

    def refuse(*_):
        raise AssertionError("CLIP's own weights were asked for")

    monkeypatch.setattr(clip_loader, "_locate_weights", refuse)


def test_the_predictor_takes_only_the_checkpoint(toy_weights, refuse_own_weights):
    predictor = Predictor.from_config(TOY, "pixelclip_vitb16", ("MODEL.DEVICE", "cpu"))
    for name, value in predictor.model.state_dict().items():
        assert torch.equal(value, toy_weights[name]), name


@pytest.mark.parametrize("weights", ["pixelclip_vitb16", f"hf://{REPOSITORY}/{FILE}"])
def test_evaluation_takes_only_the_checkpoint(
    weights, toy_weights, refuse_own_weights, hub, tmp_path, monkeypatch
):
    register_test_set(tmp_path / "test_set", "three_images_of_the_zoo")
    overrides = ["MODEL.DEVICE", "cpu", "DATASETS.TEST", "('three_images_of_the_zoo',)"]
    options = ["--config-file", TOY, "--weights", weights, "--output", str(tmp_path / "output")]
    try:
        assert train_net.main([*options, "--opts", *overrides], evaluate=True) == 0
    finally:
        unregister_test_set("three_images_of_the_zoo")
    assert (tmp_path / "output" / "evaluation").is_dir()
    assert transfers(hub) == [""]


def test_a_config_with_an_address_that_fails_is_refused_at_once(hub):
    with pytest.raises(FileNotFoundError, match="no public file weights/none.pth"):
        load_config(TOY, ("MODEL.WEIGHTS", f"hf://{REPOSITORY}/weights/none.pth"))


@pytest.mark.slow
def test_a_published_file_of_full_size_predicts(tmp_path):
    """In a process with HF_ENDPOINT, broken off once; a second one finds the cache."""
    file = tmp_path / "served" / REPOSITORY / FILE
    file.parent.mkdir(parents=True)
    overrides = ("MODEL.DEVICE", "cpu", "MODEL.CLIP.PRETRAINED", "")
    model = PixelCLIP(load_config("configs/pixelclip_vitb16.yaml", overrides))
    torch.save({"model": model.state_dict()}, tmp_path / "ours.pth")
    del model
    convert_checkpoint(tmp_path / "ours.pth", file, "published")
    (tmp_path / "ours.pth").unlink()
    assert 0.8e9 < file.stat().st_size < 1.1e9
    code = (
        "import numpy; from pixelclip import Predictor\n"
        "p = Predictor.from_config('configs/pixelclip_vitb16.yaml', 'pixelclip_vitb16')\n"
        "print(p(numpy.zeros((64, 96, 3), 'uint8'), ['sky', 'grass']).labels.shape)"
    )
    home = {"HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", code]
    with HubServer(tmp_path / "served", cut_after=400 * 2**20) as server:
        environment = {**os.environ, **home, "HF_ENDPOINT": server.address}
        for _ in range(2):
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            assert done.stdout.splitlines()[-1] == "torch.Size([64, 96])"
    assert transfers(server) == ["", f"bytes={400 * 2**20}-"]
    assert [r.method for r in server.requests if r.path == URL] == ["HEAD", "HEAD", "GET", "GET"]
