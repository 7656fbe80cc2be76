"""Write files that are either whole or not there."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from typing import IO, Any


@contextlib.contextmanager
def atomic_writer(path: str | os.PathLike[str]) -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path`` for binary writing; at the end, rename it to ``path``.

    When the block raises, the temporary file is removed and what stood at ``path`` is untouched.

    Raises:
        OSError: the folder does not exist or cannot be written, or the disk is full.
    """
    folder, name = os.path.split(os.path.abspath(os.fspath(path)))
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
