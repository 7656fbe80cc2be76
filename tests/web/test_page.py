import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from pixelclip.toy.scenes import CLASS_NAMES, make_scene
from pixelclip.web.models import PageModels
from pixelclip.web.page import serve, write_examples
from pixelclip.web.request import Limits

META = {"_type": "gradio.FileData"}
LIMITS = Limits(upload_megabytes=0.1)
# More than an answer takes, less than a person waits.
PATIENCE_SECONDS = 600  # only ends what hangs


def test_examples_have_the_words_of_their_scenes_and_two_more(tmp_path):
    for path, typed in write_examples(tmp_path):
        words = typed.split(", ")
        assert set(words) <= set(CLASS_NAMES) and len(set(words)) == len(words)
        scene = make_scene(13, int(Path(path).stem.removeprefix("scene_")))
        assert len(set(words) - {layer.name for layer in scene.layers}) == 2


def test_without_gradio_the_extra_is_named(toy_models, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with (
        pytest.raises(ImportError, match=r'gradio.*pip install "pixelclip\[web\]"'),
        serve(toy_models, Limits()),
    ):
        pass


@pytest.fixture(scope="module")
def address(toy_models, asked_for):
    pytest.importorskip("gradio")
    with serve(toy_models, LIMITS) as found:
        yield found.rstrip("/")


def call(address, find_event, data, event_data=None, session="s"):
    """The answer of the page to the event of its configuration that is looked for."""
    with urllib.request.urlopen(f"{address}/config") as answer:
        config = json.load(answer)
    ids = {part["props"].get("elem_id"): part["id"] for part in config["components"]}
    event = next(event for event in config["dependencies"] if find_event(event, ids))
    message = {"data": data, "event_data": event_data, "session_hash": session}
    request = urllib.request.Request(
        f"{address}/gradio_api/queue/join",
        json.dumps({**message, "fn_index": event["id"]}).encode(),
        {"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request).close()
    url = f"{address}/gradio_api/queue/data?session_hash={session}"
    with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as stream:
        for line in stream:
            if b"process_completed" in line:
                return json.loads(line.removeprefix(b"data: "))
    raise AssertionError("the page gave no answer")


def ask(address, **fields):
    """The page's answer to a request to segment, with some inputs replaced."""
    values = {"image": None, "words": "sky", "compare": [], "opacity": 0.6, **fields}
    return call(
        address,
        lambda event, ids: event["inputs"] == [ids.get(name) for name in values],
        list(values.values()),
    )


def on(component, name):
    """Finds what happens on an event of a component."""
    return lambda event, ids: [ids[component], name] in [list(one) for one in event["targets"]]


@pytest.mark.parametrize("extra", [{}, {"meta": META}, {"meta": {"_type": "other"}}])
def test_a_file_of_the_server_is_not_shown(address, tmp_path, extra):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "secret.png")
    answer = ask(address, image={"path": str(tmp_path / "secret.png"), **extra})
    assert not answer["success"]
    assert "uploaded" in answer["output"]["error"]


def upload(address, content):
    """The path that the page gives to a file."""
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="own.png"\r\n\r\n'
    request = urllib.request.Request(
        f"{address}/gradio_api/upload",
        body + content + b"\r\n--x--\r\n",
        {"Content-Type": "multipart/form-data; boundary=x"},
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)[0]


def test_an_uploaded_image_is_segmented(address, tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "own.png")
    path = upload(address, (tmp_path / "own.png").read_bytes())
    assert ask(address, image={"path": path, "meta": META})["success"]
    Path(path).unlink()
    answer = ask(address, image={"path": path, "meta": META})
    assert "no longer there" in answer["output"]["data"][0]


def test_a_result_is_changed_and_downloaded_in_its_session(address, tmp_path):
    Image.fromarray(make_scene(13, 0).pixels).save(tmp_path / "own.png")
    path = upload(address, (tmp_path / "own.png").read_bytes())
    answer = ask(address, image={"path": path, "meta": META}, words="sky, stone")
    assert 'data-class="1" checked' in str(answer["output"]["data"])
    answer = call(address, on("viewer", "toggle"), [None], {"hidden": [1]})
    shown = str(answer["output"]["data"])
    assert 'data-class="0" checked' in shown and 'data-class="1">' in shown
    answer = call(address, on("threshold", "input"), [None, 0.3, 0.5])
    shown = str(answer["output"]["data"])
    assert 'data-threshold="0.3"' in shown and 'data-class="1">' in shown
    answer = call(address, on("compare", "input"), [None, ["NACLIP"]])
    assert str(answer["output"]["data"]).count("<figure>") == 2
    for kind in ("overlay", "labels"):
        answer = call(address, on(f"download-{kind}", "click"), [None])
        assert f"pixelclip_{kind}.png" in str(answer["output"]["data"])
        other = call(address, on(f"download-{kind}", "click"), [None], session="other")
        assert "nothing to download yet" in str(other["output"]["data"])


@pytest.mark.parametrize("image", [{"path": ""}, {"path": None, "url": "file:///etc/hostname"}])
def test_an_image_without_a_path_is_asked_for(address, image):
    answer = ask(address, image=image)
    assert "Choose an image first" in answer["output"]["data"][0]


def test_only_the_offered_baselines_are_shown(address):
    answer = call(address, on("compare", "input"), [None, ["anything"]])
    assert not answer["success"]


def test_only_the_toy_model_comes_with_toy_scenes(toy_models, monkeypatch):
    pytest.importorskip("gradio")
    monkeypatch.setattr(PageModels, "is_toy", False)
    with serve(toy_models, LIMITS) as found, urllib.request.urlopen(f"{found}config") as answer:
        config = json.load(answer)
    ids = [part["props"].get("elem_id") for part in config["components"]]
    assert "examples" not in ids and "segment" in ids


def test_a_file_above_the_limit_is_not_stored(address):
    with pytest.raises(urllib.error.HTTPError) as problem:
        upload(address, b"x" * 100_001)
    assert problem.value.code == 413


@pytest.mark.parametrize("component", ["image", "words", "opacity"])
@pytest.mark.parametrize("extra", [{}, {"is_stream": True}])
def test_an_address_is_not_fetched(address, component, extra, monkeypatch):
    import gradio.processing_utils

    fetched = []

    async def fetch(url, cache_dir):
        fetched.append(url)
        raise OSError("fetched")

    monkeypatch.setattr(gradio.processing_utils, "async_ssrf_protected_download", fetch)
    url = "http://example.org/image.png"
    answer = ask(address, **{component: {"path": url, "meta": META, **extra}})
    assert not fetched
    assert component != "image" or "uploaded" in answer["output"]["error"]


def test_the_server_asks_nothing_of_other_machines(address, asked_for):
    """The last test: the list holds what all of them did."""
    with urllib.request.urlopen(address) as answer:
        assert answer.status == 200
    assert asked_for == []
