"""Videos are read and written frame by frame, and are complete or absent."""

import os
import resource

import cv2
import numpy as np
import pytest

from pixelclip.data.images import ImageReadError
from pixelclip.inference.video import VideoSource, write_video

COLORS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (30, 200, 200)]


def plain(color, height=48, width=64):
    return np.full((height, width, 3), color, np.uint8)


@pytest.fixture
def video(tmp_path):
    with write_video(tmp_path / "video.mp4", 5) as target:
        for color in COLORS:
            target.add(plain(color))
    return tmp_path / "video.mp4"


def test_frames_come_back_in_order_and_in_rgb(video):
    with VideoSource(video) as source:
        assert (source.rate, source.count) == (5, 5)
        frames = list(source)
    assert [round(frame.seconds, 6) for frame in frames] == [0, 0.2, 0.4, 0.6, 0.8]
    for frame, color in zip(frames, COLORS, strict=True):
        assert np.abs(frame.pixels.mean(axis=(0, 1)) - color).max() < 25


def test_a_step_takes_the_first_of_each_so_many(video):
    with VideoSource(video, 2) as source:
        assert (source.rate, source.count) == (2.5, 3)
        frames = list(source)
    assert [frame.seconds for frame in frames] == [0, 0.4, 0.8]
    for frame, color in zip(frames, COLORS[::2], strict=True):
        assert np.abs(frame.pixels.mean(axis=(0, 1)) - color).max() < 25


def test_odd_sides_and_other_sizes_are_taken(tmp_path):
    with write_video(tmp_path / "odd.mp4", 10) as target:
        target.add(plain(COLORS[0], 47, 63))
        target.add(plain(COLORS[1], 20, 30))
    with VideoSource(tmp_path / "odd.mp4") as source:
        assert [frame.pixels.shape for frame in source] == [(48, 64, 3)] * 2


def test_a_video_is_complete_or_absent(tmp_path):
    (tmp_path / "old.mp4").write_bytes(b"old")
    with pytest.raises(RuntimeError), write_video(tmp_path / "old.mp4", 5) as target:
        target.add(plain(COLORS[0]))
        raise RuntimeError
    with write_video(tmp_path / "old.mp4", 5):
        pass
    assert (tmp_path / "old.mp4").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["old.mp4"]
    with (
        pytest.raises(FileNotFoundError, match="none"),
        write_video(tmp_path / "none" / "x.mp4", 5) as target,
    ):
        target.add(plain(COLORS[0]))


def test_a_video_that_the_disk_cuts_off_replaces_nothing(tmp_path):
    (tmp_path / "old.mp4").write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    generator = np.random.default_rng(0)
    with pytest.raises(OSError, match="0 of the 20 frames") as raised:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
            with write_video(tmp_path / "old.mp4", 5) as target:
                for _ in range(20):
                    target.add(generator.integers(0, 256, (48, 64, 3), np.uint8))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.filename == str(tmp_path / "old.mp4")
    assert (tmp_path / "old.mp4").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["old.mp4"]


def test_what_is_not_a_video_is_refused(tmp_path):
    for content in (b"", b"text" * 100):
        (tmp_path / "bad.mp4").write_bytes(content)
        with pytest.raises(ImageReadError, match=r"bad\.mp4 cannot be opened"):
            VideoSource(tmp_path / "bad.mp4")
    with pytest.raises(ImageReadError, match="camera 97 cannot be opened"):
        VideoSource(97)
    with pytest.raises(ValueError, match="step"):
        VideoSource(tmp_path / "bad.mp4", 0)


def test_a_name_that_is_not_text_is_refused(tmp_path, video):
    name = os.fsdecode(b"\xff.mp4")
    video.rename(tmp_path / name)
    with pytest.raises(ImageReadError, match="name that is not text"):
        VideoSource(tmp_path / name)
    with pytest.raises(OSError, match="name is not text"), write_video(tmp_path / name, 5):
        pass


def test_a_source_without_a_rate_gets_the_default(monkeypatch, video):
    real = cv2.VideoCapture

    class Silent:
        def __init__(self, source):
            self._real = real(str(video))

        def get(self, _):
            return 0.0

        def __getattr__(self, name):
            return getattr(self._real, name)

    monkeypatch.setattr(cv2, "VideoCapture", Silent)
    with VideoSource(0) as source:
        assert (source.rate, source.count) == (25, None)
        assert len(list(source)) == 5
