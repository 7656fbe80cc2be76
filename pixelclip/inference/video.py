"""Read videos and cameras, and write videos."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from pixelclip.data.images import ImageReadError
from pixelclip.utils.visualization import ImageArray


class Frame(NamedTuple):
    """An image (H, W, 3) uint8 RGB of a video, and when it is shown, in seconds."""

    pixels: ImageArray
    seconds: float


class VideoSource(contextlib.AbstractContextManager["VideoSource"]):
    """The frames of a video file or a camera; a context manager, and iterable once.

    Of every ``step`` frames, the first is taken. A source is a path or the number of a camera.

    Attributes:
        rate: frames per second, of those that are taken.
        count: number of these that the file announces, or None where it says nothing.

    Raises:
        ImageReadError: the file cannot be opened as a video, or there is no such camera.
        ValueError: a step below 1.
    """

    def __init__(self, source: str | os.PathLike[str] | int, step: int = 1) -> None:
        if step < 1:
            raise ValueError(f"The step between frames is {step}; expected at least 1.")
        is_camera = isinstance(source, int)
        name = f"camera {source}" if isinstance(source, int) else os.fspath(source)
        if not _is_text(name):
            raise ImageReadError(f"{name} has a name that is not text; rename the file")
        self._capture = cv2.VideoCapture(source if is_camera else name)
        if not self._capture.isOpened():
            raise ImageReadError(f"{name} cannot be opened as a video")
        self._step = step
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = (rate if 0 < rate < 1000 else 25.0) / step  # some do not say it
        frames = 0 if is_camera else int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count = -(-frames // step) if frames > 0 else None

    def __exit__(self, *_: object) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[Frame]:
        number = 0
        while True:
            is_read, pixels = self._capture.read()
            if not is_read:
                return
            yield Frame(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), number / self.rate)
            number += 1
            for _ in range(self._step - 1):
                self._capture.grab()


class VideoTarget:
    """An MP4 file that frames of one size are added to; ``count`` is their number."""

    def __init__(self, path: Path, rate: float) -> None:
        self.path = path
        self._rate = rate
        self._size = (0, 0)
        self.writer = cv2.VideoWriter()
        self.count = 0

    def add(self, image: ImageArray) -> None:
        """Add an image (H, W, 3) in RGB; white lines make its sides even, as codecs require.

        Raises:
            OSError: the file cannot be written.
        """
        height, width = image.shape[:2]
        even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), constant_values=255)
        if not self.count:
            self._size = (even.shape[1], even.shape[0])
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            if not self.writer.open(str(self.path), codec, self._rate, self._size):
                raise OSError(f"the video {self.path} cannot be written")
        if (even.shape[1], even.shape[0]) != self._size:
            even = cv2.resize(even, self._size)
        self.writer.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))
        self.count += 1


@contextlib.contextmanager
def write_video(path: str | os.PathLike[str], rate: float) -> Iterator[VideoTarget]:
    """Write an MP4 video, ``rate`` frames per second, that is either complete or absent.

    When the block raises, or adds no frame, what stood at ``path`` is untouched.

    Raises:
        OSError: the file cannot be written, or not all of it; it names the path.
    """
    final = Path(path)
    if not _is_text(str(final)):
        raise OSError(errno.EILSEQ, "cannot be written: the name is not text", str(final))
    with tempfile.TemporaryDirectory(prefix=".video-", dir=final.parent) as folder:
        target = VideoTarget(Path(folder, "video.mp4"), rate)
        try:
            yield target
        finally:
            target.writer.release()
        if target.count:
            _check_written(target.path, final, target.count)
            os.replace(target.path, final)


def _is_text(path: str) -> bool:
    """Whether all bytes of a path are text; with others, OpenCV ends the process."""
    return path.encode(errors="ignore").decode() == path


def _check_written(temporary: Path, final: Path, expected: int) -> None:
    """Read back what was written: OpenCV does not report that a disk is full."""
    capture = cv2.VideoCapture(str(temporary))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    capture.set(cv2.CAP_PROP_POS_FRAMES, expected - 1)
    is_complete = count == expected and capture.read()[0]
    capture.release()
    if not is_complete:
        free = shutil.disk_usage(final.parent).free / 2**20
        text = f"cannot be written: {max(count, 0)} of the {expected} frames can be read back"
        raise OSError(errno.EIO, f"{text} ({free:.1f} MiB free there)", str(final))
