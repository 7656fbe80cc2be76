"""The folder that a demo works in: whose it is, what is done, and how long that took."""

import contextlib
import fcntl
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pixelclip.utils.atomic_write import atomic_writer

_STATE = "demo.json"
_LOCK = ".lock"

# What --fresh removes; drawn scenes stay.
_MADE_BY_DEMO = (
    "evaluation",
    "training",
    "pictures",
    "report.md",
    "report.html",
    "log.txt",
    _STATE,
)

# Scenes, checkpoints and predictions together take about 200 MB.
_NEEDED_BYTES = 300_000_000


class DemoFolder:
    """The state of a demo on disk.

    Use :func:`open_demo_folder`, which checks and locks the folder.

    Attributes:
        path: of the folder.
        is_finished: whether the report is written.
        seconds: how long each stage has taken so far, interrupted attempts included, but not those
            that the system killed.
    """

    def __init__(self, path: Path, settings: str, seconds: dict[str, float], done: bool) -> None:
        self.path = path
        self.settings = settings
        self.seconds = seconds
        self.is_finished = done

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time that the block takes to a stage's, also where it is broken off."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
            self.save()

    def finish(self) -> None:
        """Note that all is done."""
        self.is_finished = True
        self.save()

    def save(self) -> None:
        """Write the state in one step."""
        state = {
            "settings": self.settings,
            "seconds": self.seconds,
            "is_finished": self.is_finished,
        }
        with atomic_writer(self.path / _STATE) as file:
            file.write(json.dumps(state, indent=2).encode())


@contextlib.contextmanager
def open_demo_folder(path: Path, settings: str, fresh: bool = False) -> Iterator[DemoFolder]:
    """Open the folder of a new demo, or of one that is to go on, for this process alone.

    Args:
        path: the folder; made where it is missing.
        settings: a hash of all that the demo's results depend on.
        fresh: remove what a demo has left there and begin anew.

    Raises:
        OSError: the folder cannot be written, or its disk is nearly full.
        ValueError: it holds a demo of other settings, files that no demo has made, or a demo that
            is running at this moment.
    """
    _check_writable(path)
    with _lock(path):
        if fresh and (path / _STATE).exists():
            _remove(path)
        state = _read_state(path, settings)
        folder = DemoFolder(path, settings, state["seconds"], state["is_finished"])
        if not folder.is_finished:
            _check_space(path)
        folder.save()
        yield folder


def _check_writable(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise type(error)(
            error.errno,
            f"the output folder cannot be written ({error.strerror}); choose another by --output",
            str(path),
        ) from error


def _check_space(path: Path) -> None:
    free = shutil.disk_usage(path).free
    if free < _NEEDED_BYTES:
        raise OSError(
            f"{path} has {free / 1e6:.0f} MB left on its disk, and the demo needs "
            f"{_NEEDED_BYTES / 1e6:.0f} MB; make room, or choose another folder by --output"
        )


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Keep other processes out; the system releases the lock of one that was killed."""
    with open(path / _LOCK, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another demo is running in {path}; wait for it, or choose another folder by "
                "--output"
            ) from None
        yield


def _remove(path: Path) -> None:
    # The state goes last: while it is there, the rest is known to be a demo's.
    for name in _MADE_BY_DEMO:
        target = path / name
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def _read_state(path: Path, settings: str) -> dict[str, Any]:
    try:
        state = json.loads((path / _STATE).read_bytes())
        found = state["settings"], dict(state["seconds"]), bool(state["is_finished"])
    except FileNotFoundError:
        _check_empty(path)
        return {"seconds": {}, "is_finished": False}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path / _STATE} is damaged ({error!r}); begin anew with --fresh"
        ) from error
    if found[0] != settings:
        raise ValueError(
            f"{path} holds a demo of other settings or other weights; begin anew with --fresh, or "
            "choose another folder by --output"
        )
    return {"seconds": found[1], "is_finished": found[2]}


def _check_empty(path: Path) -> None:
    foreign = [name for name in _MADE_BY_DEMO if (path / name).exists()]
    if foreign:
        raise ValueError(
            f"{path} holds {', '.join(foreign)}, which no demo has made; choose another folder by "
            "--output, or move them away"
        )
