"""Fetch weights by name or address, once: what is in Hugging Face's cache needs no network."""

import concurrent.futures
import contextlib
import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from detectron2.utils.file_io import PathManager

from pixelclip.checkpoint.model_zoo import SCHEME, get_model, list_models

Result = TypeVar("Result")

# What a model's folder holds, here or on the hub; see ``Predictor.save_pretrained``.
WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.yaml"

# Each gives the repository, the revision (or None) and the path of the file in the repository.
_HUB_FORMS = (
    re.compile(r"hf://([^/@]+/[^/@]+)(?:@([^/]+))?/([^?]+)"),
    re.compile(r"https://huggingface\.co/([^/]+/[^/]+)/(?:resolve|blob)/([^/]+)/([^?]+)(?:\?.*)?"),
)
# The same for a whole model, unless it looks like a file of weights.
_HUB_MODEL = re.compile(
    r"(?:hf://|https://huggingface\.co/)?(?!.*\.(?:pth|pt|pkl|bin|safetensors)$)"
    r"(\w[\w.-]*/[\w.-]+)(?:@([^/]+))?/?"
)
# Seconds until a server must have answered: who has no network is told within ten, the imports of
# a command included.
_ANSWER_LIMIT = 3.0
_UNCOMPRESSED = {"Accept-Encoding": "identity"}  # sizes are those of the file


def fetch_weights(weights: str) -> str:
    """Local path of weights, which are downloaded unless they are in the cache.

    The cache, the progress bar, the resumption of an interrupted transfer and the environment
    variables (``HF_HOME``, ``HF_ENDPOINT``, ``HF_HUB_OFFLINE``) are huggingface_hub's. Cached files
    are taken as they are, without a request. Of several processes one downloads, and the others
    wait for its file lock.

    Args:
        weights: the path of a file, a name of the model zoo (also as ``pixelclip://NAME``), the
            path of a model's folder, a model of the hub (``owner/name``), one of its files
            (``hf://owner/repository/path/of/file.pth``; both also as ``owner/name@revision``), an
            ``https://`` address, or what another handler of Detectron2's PathManager knows.
            "" for none, which is returned.

    Returns:
        The path of a file; of a model's folder its weights, next to which its config lies.

    Raises:
        FileNotFoundError: there is no such file, here or on the server.
        ConnectionError: the server cannot be reached; says how to do without it.
        ValueError: the zoo has no such model, or none with a checkpoint.
    """
    if not weights or os.path.isfile(weights):
        return weights
    if weights.startswith(SCHEME) or weights in list_models():
        return fetch_weights(_address_of(weights))
    if os.path.isdir(weights):
        return _find_in_folder(weights)
    for form in _HUB_FORMS:
        if match := form.fullmatch(weights):
            return _fetch_from_hub(*match.groups())
    if match := _HUB_MODEL.fullmatch(weights):
        return _fetch_model(*match.groups())
    if weights.startswith(("https://", "http://")):
        return _fetch_from_web(weights)
    path = PathManager.get_local_path(weights)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"The checkpoint {weights!r} does not exist. Weights (--weights, MODEL.WEIGHTS, or the "
            f"content of a file last_checkpoint) are a file, one of {', '.join(list_models())}, "
            "a model's folder, owner/name or hf://owner/repository/file of the Hugging Face hub, "
            "or an https:// address."
        )
    return path


def _address_of(name: str) -> str:
    model = get_model(name)
    if not model.address:
        raise ValueError(
            f"The model {model.name!r} has no checkpoint: leave the weights empty and use its "
            f"config {model.config_file}."
        )
    return model.address


def _find_in_folder(folder: str) -> str:
    path = os.path.join(folder, WEIGHTS_FILE)
    if not os.path.isfile(path):
        others = sorted(name for name in os.listdir(folder) if name.endswith(".pth"))
        hint = f" Of its checkpoints, name one: {', '.join(others[-3:])}." if others else ""
        raise FileNotFoundError(f"The folder {folder!r} has no {WEIGHTS_FILE}.{hint}")
    return path


def _fetch_model(repository: str, revision: str | None) -> str:
    """Download the config and the weights of one commit, and nothing else."""
    try:
        config = _fetch_from_hub(repository, revision, CONFIG_FILE)
    except (FileNotFoundError, ConnectionError) as error:
        text = f"{repository!r} is not a file or folder here, and as a model of the hub: {error}"
        raise type(error)(text) from error
    commit = os.path.basename(os.path.dirname(config))  # the name of the snapshot in the cache
    return _fetch_from_hub(repository, commit, WEIGHTS_FILE)


def _fetch_from_hub(repository: str, revision: str | None, file: str) -> str:
    import huggingface_hub as hub

    revision, file = unquote(revision or "main"), unquote(file)
    cached = hub.try_to_load_from_cache(repository, file, revision=revision)
    if isinstance(cached, str):
        return cached
    url = hub.hf_hub_url(repository, file, revision=revision)
    lacking = f"the repository {repository} has no public file {file} in revision {revision}"
    with _explained_errors(url, lacking):
        # Without it, the library's own retries would take minutes to find that there is no network.
        _within_limit(lambda: hub.get_hf_file_metadata(url, timeout=_ANSWER_LIMIT))
        return hub.hf_hub_download(repository, file, revision=revision)


def _fetch_from_web(url: str) -> str:
    """Download an address that is not a file of the hub, into the hub's cache of other files."""
    from huggingface_hub import cached_assets_path
    from huggingface_hub.utils import WeakFileLock

    folder = cached_assets_path("pixelclip", namespace="weights", subfolder=_key(url))
    path = os.path.join(folder, os.path.basename(unquote(urlsplit(url).path)) or "weights.pth")
    if os.path.isfile(path):
        return path
    with _explained_errors(url, "the server has no such public file"):
        size, version = _ask_size_and_version(url)
        with WeakFileLock(f"{path}.lock"):
            if not os.path.isfile(path):
                partial = f"{path}.{version}.incomplete"
                _download(url, partial, size)
                os.replace(partial, path)
    return path


def _ask_size_and_version(url: str) -> tuple[int | None, str]:
    """Bytes of the file at an address, where the server says so, and a key of its version."""
    from huggingface_hub.utils import hf_raise_for_status, http_backoff

    answer = _within_limit(
        lambda: http_backoff(
            "HEAD", url, max_retries=0, retry_on_status_codes=(), timeout=_ANSWER_LIMIT,
            headers=_UNCOMPRESSED,
        )
    )  # fmt: skip
    if answer.status_code in (403, 405):  # some servers allow only to download
        return None, "unknown"
    hf_raise_for_status(answer)
    size, *others = (answer.headers.get(n) for n in ("Content-Length", "ETag", "Last-Modified"))
    return int(size) if size else None, _key(f"{size} {others}")


def _download(url: str, path: str, size: int | None) -> None:
    """Write a file, or the rest of it where its whole size is known."""
    from huggingface_hub.file_download import http_get

    with open(path, "ab" if size else "wb") as file:
        http_get(url, file, resume_size=file.tell(), headers=_UNCOMPRESSED, expected_size=size)


def _key(text: str) -> str:
    """A short name of a file or folder for any text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _within_limit(request: Callable[[], Result]) -> Result:
    """Call a function; a thread that waits for the network longer than the limit is left behind."""
    answer: concurrent.futures.Future[Result] = concurrent.futures.Future()

    def ask() -> None:
        try:
            answer.set_result(request())
        except Exception as error:  # to be raised in the thread that waits
            answer.set_exception(error)

    # Not of an executor, whose threads Python waits for when it ends.
    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.result(timeout=_ANSWER_LIMIT)
    except concurrent.futures.TimeoutError as error:
        raise ConnectionError(f"no answer within {_ANSWER_LIMIT:g} s") from error


@contextlib.contextmanager
def _explained_errors(url: str, lacking: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of several libraries, by version, and not all of them OSErrors
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403, 404, 410):
            raise FileNotFoundError(
                f"{url} cannot be downloaded: {lacking} (HTTP {status})."
            ) from error
        reason = f"{type(error).__name__}: {error}".splitlines()[0].partition(". ")[0].rstrip(".")
        name = os.path.basename(unquote(urlsplit(url).path))
        remedy = f"copy that file to this machine, for example to weights/{name}, and give the path"
        if name in (CONFIG_FILE, WEIGHTS_FILE):
            remedy = f"copy {CONFIG_FILE} and {WEIGHTS_FILE} to a folder, and give the folder"
        raise ConnectionError(
            f"The weights {url} could not be downloaded ({reason}): try again with a network, or "
            f"{remedy} with --weights (MODEL.WEIGHTS in a config)."
        ) from error
