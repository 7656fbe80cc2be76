import json
import os
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from pixelclip.web.page import serve
from pixelclip.web.request import Limits, RequestError
from pixelclip.web.uploads import find_upload

META = {"_type": "gradio.FileData"}
# More than an answer takes on the busiest machine: it only ends what hangs.
PATIENCE_SECONDS = 600


@pytest.fixture
def uploads(tmp_path):
    folder = tmp_path / "uploads"
    (folder / "a").mkdir(parents=True)
    for path in (folder / "a" / "own.png", tmp_path / "secret.png"):
        Image.new("RGB", (8, 8), "red").save(path)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "inner.png").symlink_to(folder / "a" / "own.png")
    os.mkfifo(folder / "pipe")
    return folder


def test_an_upload_is_found(uploads):
    own = os.path.realpath(uploads / "a" / "own.png")
    assert find_upload(own, str(uploads)) == own
    assert find_upload(str(uploads / "inner.png"), str(uploads)) == own
    assert find_upload(None, str(uploads)) is None
    gone = os.path.realpath(uploads / "gone.png")  # read_picture asks for it again
    assert find_upload(gone, str(uploads)) == gone


@pytest.mark.parametrize(
    "path",
    ["../secret.png", "a/../../gone.png", "link.png", "pipe", "", "a", "own\0.png", "a/" * 3000],
)
def test_all_else_is_refused(uploads, path):
    with pytest.raises(RequestError, match="was not uploaded to this page"):
        find_upload(os.path.join(uploads, path), str(uploads))


def test_a_folder_beside_with_the_same_beginning_is_another(uploads, tmp_path):
    with pytest.raises(RequestError, match="was not uploaded"):
        find_upload(str(tmp_path / "uploads2.png"), str(uploads))


@pytest.fixture(scope="module")
def address(toy_models):
    pytest.importorskip("gradio")
    with serve(toy_models, Limits()) as found:
        yield found.rstrip("/")


def ask(address, **fields):
    """The page's answer to a request to segment, with some inputs replaced."""
    with urllib.request.urlopen(f"{address}/config") as answer:
        config = json.load(answer)
    labels = {part["id"]: part["props"].get("elem_id") for part in config["components"]}
    names = ["picture", "words", "compare", "opacity"]
    number = next(
        event["id"]
        for event in config["dependencies"]
        if [labels[part] for part in event["inputs"]] == names
    )
    values = {"picture": None, "words": "sky", "compare": False, "opacity": 0.6, **fields}
    data = {"data": [values[name] for name in names], "fn_index": number, "session_hash": "s"}
    request = urllib.request.Request(
        f"{address}/gradio_api/queue/join",
        json.dumps(data).encode(),
        {"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request).close()
    url = f"{address}/gradio_api/queue/data?session_hash=s"
    with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as stream:
        for line in stream:
            if b"process_completed" in line:
                return json.loads(line.removeprefix(b"data: "))
    raise AssertionError("the page gave no answer")


@pytest.mark.slow
@pytest.mark.parametrize("extra", [{}, {"meta": META}, {"meta": {"_type": "other"}}])
def test_a_file_of_the_server_is_not_shown(address, uploads, extra):
    answer = ask(address, picture={"path": str(uploads.parent / "secret.png"), **extra})
    assert not answer["success"]
    assert "uploaded" in answer["output"]["error"]


@pytest.mark.slow
def test_an_uploaded_picture_is_segmented(address, uploads):
    content = (uploads / "a" / "own.png").read_bytes()
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="own.png"\r\n\r\n'
    request = urllib.request.Request(
        f"{address}/gradio_api/upload",
        body + content + b"\r\n--x--\r\n",
        {"Content-Type": "multipart/form-data; boundary=x"},
    )
    with urllib.request.urlopen(request) as answer:
        (path,) = json.load(answer)
    assert ask(address, picture={"path": path, "meta": META})["success"]
    Path(path).unlink()
    answer = ask(address, picture={"path": path, "meta": META})
    assert "no longer there" in answer["output"]["data"][0]


@pytest.mark.slow
@pytest.mark.parametrize("component", ["picture", "words", "opacity"])
@pytest.mark.parametrize("extra", [{}, {"is_stream": True}])
def test_an_address_is_not_fetched(address, component, extra, monkeypatch):
    import gradio.processing_utils

    fetched = []

    async def fetch(url, cache_dir):
        fetched.append(url)
        raise OSError("fetched")

    monkeypatch.setattr(gradio.processing_utils, "async_ssrf_protected_download", fetch)
    url = "http://example.org/picture.png"
    answer = ask(address, **{component: {"path": url, "meta": META, **extra}})
    assert not fetched
    assert component != "picture" or "uploaded" in answer["output"]["error"]
