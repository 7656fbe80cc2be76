"""A small server on this machine that speaks Hugging Face's protocol for downloads.

It serves FOLDER/OWNER/REPOSITORY/FILE as /OWNER/REPOSITORY/resolve/REVISION/FILE, whatever the
revision, and any file as any other web server would: FOLDER/FILE as /FILE. As a program:

    python -m tests.checkpoint.hub_server --folder F --port P [--cut-after BYTES]
    HF_ENDPOINT=http://127.0.0.1:P pixelclip predict ...
"""

import argparse
import hashlib
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import unquote

_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)")


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
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0, cut_after: int | None = None) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.folder, self.cut_after = folder, cut_after
        self.requests: list[Request] = []
        self.status: int | None = None
        self.allows_head = True

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

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

    def log_message(self, *_: object) -> None:
        """Say nothing; the server keeps the requests."""

    def _answer(self) -> None:
        span = self.headers.get("Range", "")
        self.server.requests.append(Request(self.command, self.path, span))
        if self.server.status:
            self._refuse(self.server.status)
            return
        in_hub = _RESOLVE.fullmatch(unquote(self.path))
        name = "/".join(in_hub.groups()) if in_hub else unquote(self.path).lstrip("/")
        file = self.server.folder / name
        if file.is_file():
            self._send_file(file, in_hub[1] if in_hub else None, span)
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

    def _send_file(self, file: Path, repository: str | None, span: str) -> None:
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
        if repository:
            self.send_header("X-Repo-Commit", hashlib.sha1(repository.encode()).hexdigest())
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
