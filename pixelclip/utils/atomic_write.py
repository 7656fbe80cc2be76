"""Write files and folders that are either complete or absent."""

import contextlib
import functools
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from errno import EACCES, EDQUOT, EFBIG, EIO, ENOSPC, EPERM, EROFS
from typing import IO, Any

_HOST = socket.gethostname()
_TEMPORARY = re.compile(rf"\..+\.{re.escape(_HOST)}-(\d+)-[0-9a-f]{{32}}\.tmp")
_DISK_ERRORS = {EACCES, EDQUOT, EFBIG, EIO, ENOSPC, EPERM, EROFS}


@contextlib.contextmanager
def atomic_writer(path: str | os.PathLike[str], replace: bool = True) -> Iterator[IO[Any]]:
    """Open a temporary file next to ``path`` for binary writing; at the end, rename it to ``path``.

    When the block raises, the temporary file is removed and what stood at ``path`` is untouched.

    Args:
        path: of the file.
        replace: whether to replace a file that stands there at the end; if not, one of several
            processes wins.

    Raises:
        OSError: the file cannot be written; it names the path and the free space.
    """
    folder, name = os.path.split(os.path.abspath(os.fspath(path)))
    _remove_leftovers_once(folder)
    temporary = _temporary_path(folder, name)
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        (os.replace if replace else _rename_once)(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        cause: Any = error
        while cause is not None and getattr(cause, "errno", None) not in _DISK_ERRORS:
            cause = cause.__cause__ or cause.__context__  # torch.save hides the disk's error
        if cause is None or cause.filename not in (None, temporary):
            raise
        free = shutil.disk_usage(folder).free / 2**20
        text = f"cannot be written: {cause.strerror} ({free:.1f} MiB free there)"
        raise OSError(cause.errno, text, os.path.join(folder, name)) from error


def _rename_once(source: str, target: str | os.PathLike[str]) -> None:
    """Rename a file, or remove it where the target exists."""
    try:
        os.link(source, target)
    except FileExistsError:
        pass
    except OSError:  # the disk has no hard links; two may still win in the same moment
        if not os.path.exists(target):
            os.replace(source, target)
            return
    os.unlink(source)


def _temporary_path(folder: str, name: str) -> str:
    # Shortened: with all that is added, a long name would be too long.
    name_start = os.fsdecode(os.fsencode(name)[:100])
    return os.path.join(folder, f".{name_start}.{_HOST}-{os.getpid()}-{uuid.uuid4().hex}.tmp")


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[str]:
    """Make a temporary folder next to ``path``, to write into; at the end, rename it to ``path``.

    When the block raises, the temporary folder is removed. Folders above ``path`` are made.

    Raises:
        FileExistsError: ``path`` is a file, or a folder that is not empty.
        OSError: the folder cannot be made.
    """
    path = os.path.abspath(os.fspath(path))
    if os.path.lexists(path) and not (os.path.isdir(path) and not os.listdir(path)):
        raise FileExistsError(f"{path!r} exists: choose another folder, or remove it before.")
    path = os.path.realpath(path)  # of a link, the empty folder that it leads to
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    _remove_leftovers_once(folder)
    temporary = _temporary_path(folder, name)
    try:
        os.mkdir(temporary)
        yield temporary
        for name in os.listdir(temporary):  # safetensors lets only the owner read
            os.chmod(os.path.join(temporary, name), os.stat(temporary).st_mode & 0o666)
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_text(path: str | os.PathLike[str], text: str, replace: bool = True) -> None:
    """Write a text file in UTF-8, whole or not at all; see :func:`atomic_writer`."""
    with atomic_writer(path, replace) as file:
        file.write(text.encode())


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove what this machine's killed processes left half-written; of running ones it stays."""
    with os.scandir(folder) as entries:
        leftovers = [match for entry in entries if (match := _TEMPORARY.fullmatch(entry.name))]
    for leftover in leftovers:
        with contextlib.suppress(OSError):  # of another user
            try:
                os.kill(int(leftover[1]), 0)
            except ProcessLookupError:
                path = os.path.join(folder, leftover.string)
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


_remove_leftovers_once = functools.cache(remove_leftovers)  # listing large folders takes long
