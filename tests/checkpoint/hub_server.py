"""A small server on this machine that speaks Hugging Face's protocol for down- and uploads.

It serves FOLDER/OWNER/REPOSITORY/FILE as /OWNER/REPOSITORY/resolve/REVISION/FILE, whatever the
revision, and any file as any other web server would: FOLDER/FILE as /FILE. Uploads (large files by
Git LFS, not by Xet) appear in the folder with the commit, and not before. As a program:

    python -m tests.checkpoint.hub_server --folder F --port P [--cut-after BYTES]
    HF_ENDPOINT=http://127.0.0.1:P pixelclip predict ...
    HF_ENDPOINT=http://127.0.0.1:P HF_HUB_DISABLE_XET=1 HF_TOKEN=any python ... push_to_hub
"""

import argparse
import base64
import hashlib
import json
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import unquote

_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_BATCH = re.compile(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch")
_COMMIT = re.compile(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main")


class Request(NamedTuple):
    """A request that was made: its method, its path and its header Range ("" for none)."""

    method: str
    path: str
    range: str


class HubServer(ThreadingHTTPServer):
    """Serves a folder on a port of the loopback interface; a context manager that starts it.

    Args:
        folder: whose files are served.
        port: 0 for any that is free.
        cut_after: bytes after which the first transfer breaks off; None for never.

    Attributes:
        requests: all that were made so far.
        status: what every request is answered with instead of a file; None for none.
        allows_head: whether the method HEAD is.
        refused: beginning of the paths that are refused (403).
        uploads: content of large files by its SHA-256, for the next commit.
        commits: number of commits so far.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0, cut_after: int | None = None) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.folder, self.cut_after = folder, cut_after
        self.requests: list[Request] = []
        self.status: int | None = None
        self.allows_head = True
        self.refused = "nothing"
        self.uploads: dict[str, bytes] = {}
        self.commits = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def commit_of(self, repository: str, revision: str = "main") -> str:
        """The revision itself where it is a commit, else the repository's latest."""
        latest = hashlib.sha1(f"{repository} {self.commits}".encode()).hexdigest()
        return revision if len(revision) == len(latest) else latest

    def take_cut(self) -> int | None:
        """Bytes that a transfer may send; only the first is limited."""
        cut, self.cut_after = self.cut_after, None
        return cut


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def do_HEAD(self) -> None:  # noqa: N802
        if self.server.allows_head:
            self._answer()
        else:
            self._refuse(405)

    def do_GET(self) -> None:  # noqa: N802
        self._answer()

    def do_PUT(self) -> None:  # noqa: N802
        """Take a large file; its path ends in its SHA-256."""
        content = self._read_body()
        if content is not None:
            self.server.uploads[self.path.rpartition("/")[2]] = content
            self._send_json({})

    def do_POST(self) -> None:  # noqa: N802
        """Answer what an upload asks of the hub's API."""
        body = self._read_body()
        if body is None:
            return
        if self.path == "/api/validate-yaml":
            self._send_json({"warnings": [], "errors": []})
        elif self.path == "/api/repos/create":
            self._create(json.loads(body))
        elif _BATCH.fullmatch(self.path):
            files = json.loads(body)["objects"]
            self._send_json({"objects": [self._upload_action(file) for file in files]})
        elif commit := _COMMIT.fullmatch(self.path):
            lines = [json.loads(line) for line in body.splitlines()]
            if commit[2] == "preupload":
                self._send_json({"files": [_upload_mode(file) for file in lines[0]["files"]]})
            else:
                self._commit(commit[1], lines)
        else:
            self._refuse(404)

    def _read_body(self) -> bytes | None:
        """What was sent; None where the request is refused, or ends before its body does."""
        self.server.requests.append(Request(self.command, self.path, ""))
        size = int(self.headers["Content-Length"])
        body = self.rfile.read(size)
        status = self.server.status or (403 if self.path.startswith(self.server.refused) else None)
        if status:
            self._refuse(status)
        return None if status or len(body) < size else body

    def _send_json(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _create(self, about: dict[str, Any]) -> None:
        repository = f"{about['organization']}/{about['name']}"
        folder = self.server.folder / repository
        status = 409 if folder.exists() else 200
        folder.mkdir(parents=True, exist_ok=True)
        self._send_json({"url": f"{self.server.address}/{repository}"}, status)

    def _upload_action(self, large: dict[str, Any]) -> dict[str, Any]:
        upload = {"href": f"{self.server.address}/uploads/{large['oid']}"}
        return {**large, "actions": {"upload": upload}}

    def _commit(self, repository: str, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            path = self.server.folder / repository / value.get("path", "")
            if line["key"] == "file":
                path.write_bytes(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                path.write_bytes(self.server.uploads.pop(value["oid"]))
        self.server.commits += 1
        identifier = self.server.commit_of(repository)
        url = f"{self.server.address}/{repository}/commit/{identifier}"
        self._send_json({"commitUrl": url, "commitOid": identifier})

    def log_message(self, *_: object) -> None:
        """Say nothing; the server keeps the requests."""

    def _answer(self) -> None:
        span = self.headers.get("Range", "")
        self.server.requests.append(Request(self.command, self.path, span))
        if self.server.status:
            self._refuse(self.server.status)
            return
        in_hub = _RESOLVE.fullmatch(unquote(self.path))
        name = f"{in_hub[1]}/{in_hub[3]}" if in_hub else unquote(self.path).lstrip("/")
        file = self.server.folder / name
        if file.is_file():
            commit = self.server.commit_of(in_hub[1], in_hub[2]) if in_hub else ""
            self._send_file(file, commit, span)
        elif in_hub and not (self.server.folder / in_hub[1]).is_dir():
            self._refuse(401, "RepoNotFound")
        else:
            self._refuse(404, "EntryNotFound")

    def _refuse(self, status: int, code: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()

    def _send_file(self, file: Path, commit: str, span: str) -> None:
        size = file.stat().st_size
        start = int(span.removeprefix("bytes=").partition("-")[0]) if span else 0
        if start >= size > 0:
            self._refuse(416)
            return
        self.send_response(206 if span else 200)
        self.send_header("Content-Length", str(size - start))
        self.send_header("Accept-Ranges", "bytes")
        tag = hashlib.sha256(f"{size} {file.stat().st_mtime_ns}".encode()).hexdigest()
        self.send_header("ETag", f'"{tag}"')
        if span:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        if commit:
            self.send_header("X-Repo-Commit", commit)
            self.send_header("X-Linked-Etag", f'"{tag}"')
            self.send_header("X-Linked-Size", str(size))
        self.end_headers()
        if self.command == "GET":
            with open(file, "rb") as content:
                self._send_content(content, start)

    def _send_content(self, content: BinaryIO, start: int) -> None:
        content.seek(start)
        cut = self.server.take_cut()
        if cut is None:
            shutil.copyfileobj(content, self.wfile, 2**20)
        else:
            self.wfile.write(content.read(cut))
            self.close_connection = True


def _upload_mode(file: dict[str, Any]) -> dict[str, Any]:
    mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}


def main() -> None:
    """Serve a folder until Ctrl-C, and print each request."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="holds OWNER/REPOSITORY/FILE")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cut-after", type=int, metavar="BYTES", help="break off the first GET")
    options = parser.parse_args()
    _Handler.log_message = BaseHTTPRequestHandler.log_message  # type: ignore[method-assign]
    with HubServer(options.folder, options.port, options.cut_after) as server:
        print(f"HF_ENDPOINT={server.address}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
