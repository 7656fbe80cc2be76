"""Videos and cameras in, videos of overlays out."""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelclip.data.image_reading import ImageReadError
from pixelclip.utils.visualization import Picture

# Where a camera or a file does not say it.
_USUAL_RATE = 25.0


class Frame(NamedTuple):
    """A picture (H, W, 3) uint8 RGB of a video, and when it is shown, in seconds."""

    pixels: NDArray[np.uint8]
    seconds: float


class VideoSource:
    """The frames of a video file or a camera; a context manager, and iterable once.

    Attributes:
        rate: frames a second, of those that are taken.
        count: number of these that the file announces, or None where it says nothing.

    Args:
        source: path of a file, or number of a camera (0 is the first).
        step: take the first of each so many frames.

    Raises:
        ImageReadError: the file cannot be opened as a video, or there is no such camera.
        ValueError: a step below 1.
    """

    def __init__(self, source: str | os.PathLike[str] | int, step: int = 1) -> None:
        if step < 1:
            raise ValueError(f"The step between frames is {step}; expected at least 1.")
        if not isinstance(source, int) and not _is_text(os.fspath(source)):
            raise ImageReadError(f"{os.fspath(source)} has a name that is no text; rename the file")
        is_camera = isinstance(source, int)
        self._capture = cv2.VideoCapture(source if isinstance(source, int) else os.fspath(source))
        if not self._capture.isOpened():
            name = f"camera {source}" if is_camera else os.fspath(source)  # type: ignore[arg-type]
            raise ImageReadError(f"{name} cannot be opened as a video")
        self._step = step
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = (rate if 0 < rate < 1000 else _USUAL_RATE) / step
        frames = 0 if is_camera else int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count = -(-frames // step) if frames > 0 else None

    def __enter__(self) -> "VideoSource":
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[Frame]:
        number = 0
        while True:
            for _ in range(self._step - 1 if number else 0):
                self._capture.grab()
            is_read, pixels = self._capture.read()
            if not is_read:
                return
            yield Frame(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), number / self.rate)
            number += 1


class VideoTarget:
    """An MP4 file that frames of one size are added to.

    Args:
        path: ends in .mp4; its folder exists.
        rate: frames a second.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self._path = path
        self._rate = rate
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self.count = 0

    def add(self, picture: Picture) -> None:
        """Add a picture (H, W, 3) in RGB; white lines make its sides even, as codecs ask for.

        Raises:
            OSError: the file cannot be written.
        """
        height, width = picture.shape[:2]
        even = np.pad(
            picture, ((0, height % 2), (0, width % 2), (0, 0)), constant_values=255
        )  # (H, W, 3) -> even H and W
        if self._writer is None:
            self._size = (even.shape[1], even.shape[0])
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._path), codec, self._rate, self._size)
            if not self._writer.isOpened():
                raise OSError(f"the video {self._path} cannot be written")
        if (even.shape[1], even.shape[0]) != self._size:
            even = cv2.resize(even, self._size)
        self._writer.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))
        self.count += 1

    def close(self) -> None:
        """Write what is left to write."""
        if self._writer is not None:
            self._writer.release()


@contextlib.contextmanager
def write_video(path: str | os.PathLike[str], rate: float) -> Iterator[VideoTarget]:
    """Write an MP4 video that is either whole or not there.

    When the block raises, or adds no frame, what stood at ``path`` is untouched.

    Raises:
        OSError: the file cannot be written, or not all of it; it names the path.
    """
    final = Path(path)
    if not _is_text(str(final)):
        raise OSError(errno.EILSEQ, "cannot be written: the name is no text", str(final))
    temporary = final.with_name(f".{final.stem}.{uuid.uuid4().hex}.tmp.mp4")
    target = VideoTarget(temporary, rate)
    try:
        try:
            yield target
        finally:
            target.close()
        if target.count:
            _check_written(temporary, final, target.count)
            os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def _is_text(path: str) -> bool:
    """Whether all bytes of a path are text; with others, OpenCV ends the process."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_written(temporary: Path, final: Path, expected: int) -> None:
    """Read back what was written: OpenCV does not report that a disk is full."""
    capture = cv2.VideoCapture(str(temporary))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    capture.set(cv2.CAP_PROP_POS_FRAMES, expected - 1)
    is_whole = count == expected and capture.read()[0]
    capture.release()
    if not is_whole:
        free = shutil.disk_usage(final.parent).free / 2**20
        raise OSError(
            errno.EIO,
            f"cannot be written: {max(count, 0)} of the {expected} frames can be read back "
            f"({free:.1f} MiB free there)",
            str(final),
        )
