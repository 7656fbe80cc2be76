"""Write files that are either whole or not there."""

import contextlib
import errno
import functools
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from typing import IO, Any

_TEMPORARY = re.compile(
    rf"\..+\.{re.escape(socket.gethostname())}-(?P<process>\d+)-[0-9a-f]{{32}}\.tmp"
)


@contextlib.contextmanager
def atomic_writer(path: str | os.PathLike[str]) -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path`` for binary writing; at the end, rename it to ``path``.

    When the block raises, the temporary file is removed and what stood at ``path`` is untouched.

    Raises:
        OSError: the folder does not exist or cannot be written, or the disk is full; it names the
            path and how much space is left.
    """
    folder, name = os.path.split(os.path.abspath(os.fspath(path)))
    prefix = f".{name}.{socket.gethostname()}-"
    _remove_leftovers(folder, prefix)
    temporary = os.path.join(folder, f"{prefix}{os.getpid()}-{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        cause = _write_error_behind(error, temporary)
        if cause is not None:
            raise _explain(cause, os.path.join(folder, name)) from error
        raise


_WRITE_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    *(errno.EROFS, errno.EACCES, errno.EPERM),
)


def _write_error_behind(error: BaseException | None, temporary: str) -> OSError | None:
    """The error of the disk that an error comes from; torch.save hides it behind one of its own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _WRITE_ERRORS:
            return error if error.filename in (None, temporary) else None
        error = error.__cause__ or error.__context__
    return None


def _explain(error: OSError, path: str) -> OSError:
    """The error with the path that was to be written and the space that its disk has left."""
    space = ""
    with contextlib.suppress(OSError):
        space = f" ({shutil.disk_usage(os.path.dirname(path)).free / 2**20:.1f} MiB free there)"
    return OSError(error.errno, f"cannot be written: {error.strerror}{space}", path)


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove all temporary files in a folder that killed processes of this machine left there.

    Those of running processes stay: two runs may write into one folder.
    """
    with os.scandir(folder) as entries:
        leftovers = [match for entry in entries if (match := _TEMPORARY.fullmatch(entry.name))]
    for leftover in leftovers:
        if not _is_running(int(leftover["process"])):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, leftover.string))


def _remove_leftovers(folder: str, prefix: str) -> None:
    """Remove temporary files of this machine's processes that were killed while they wrote."""
    for name in _temporary_files_before(folder):
        process = name[len(prefix) :].split("-")[0]
        if name.startswith(prefix) and process.isdigit() and not _is_running(int(process)):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, name))


@functools.cache
def _temporary_files_before(folder: str) -> tuple[str, ...]:
    """Names of the temporary files that lay in a folder when this process first wrote to it.

    Listing the folder for every file would take longer the more files it holds.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return tuple(entry.name for entry in entries if entry.name.endswith(".tmp"))
    return ()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True
