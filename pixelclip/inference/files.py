"""Label many images and videos, and write what was found as files.

Below the output folder, an image ``photos/a.jpg`` gets ``overlays/photos/a.jpg``,
``labels/photos/a.png`` and ``results/photos/a.json``; a video ``clips/b.mov`` gets
``overlays/clips/b.mp4`` and ``results/clips/b.json``.
"""

import functools
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pixelclip.data.image_reading import ImageReadError
from pixelclip.data.vocabularies import read_vocabulary
from pixelclip.engine.setup import load_config
from pixelclip.inference.inputs import PredictionInput, find_inputs
from pixelclip.inference.predictor import Predictor
from pixelclip.inference.result import ClassShare, Prediction
from pixelclip.inference.video import Frame, VideoSource, write_video
from pixelclip.utils.atomic_write import atomic_writer
from pixelclip.utils.label_overlay import LegendEntry, add_legend
from pixelclip.utils.visualization import Picture, class_colours

# With more names, the legend of a video would be larger than the video.
_MAX_VIDEO_LEGEND = 40


@dataclass(frozen=True)
class PredictionSettings:
    """How images and videos are labelled, and where the results go.

    Attributes:
        vocabulary: see :meth:`Predictor.__call__`.
        output: folder; made where it is missing.
        config_file, weights, overrides: see :meth:`Predictor.from_config`.
        background_threshold, background_words: see :meth:`Predictor.__call__`.
        frame_step: of a video, the first of each so many frames is labelled.
    """

    vocabulary: Sequence[str] | str
    output: Path
    config_file: str = "configs/pixelclip_vitb16.yaml"
    weights: str = ""
    overrides: Sequence[str] = ()
    background_threshold: float | None = None
    background_words: Sequence[str] | None = None
    frame_step: int = 1


@dataclass
class PredictionReport:
    """What became of the inputs.

    Attributes:
        written: number of images and videos with results of this run.
        kept: number of those whose results were there already, of the same file and settings.
        problems: why there is no result, or only a part of one, by path. Bytes of a path that are
            no text are escaped.
    """

    written: int = 0
    kept: int = 0
    problems: dict[str, str] = field(default_factory=dict)


def predict_files(
    patterns: Sequence[str | os.PathLike[str]], settings: PredictionSettings
) -> PredictionReport:
    """Label images and videos; what cannot be read is skipped, counted and reported.

    Broken off, the same call goes on: finished results are kept where file, weights and settings
    are the same. Every file is whole or not there; a result's JSON is written last.

    Args:
        patterns: files, folders and globs; see :func:`find_inputs`.
        settings: how, and where to.

    Raises:
        FileNotFoundError: a pattern that nothing fits, or a config or checkpoint that is not there.
        ValueError: a setting that cannot be used.
        OSError: a result cannot be written.
    """
    inputs = find_inputs(patterns, settings.output)
    writer = _ResultWriter(settings)
    report = PredictionReport()
    for one in tqdm(inputs, desc="labelling", unit="file", file=sys.stderr):
        if writer.is_finished(one):
            report.kept += 1
            continue
        try:
            problem = writer.write(one)
            report.written += 1
        except ImageReadError as error:
            problem = str(error)
        if problem:
            report.problems[_printable(str(one.path))] = _printable(problem)
    return report


def predict_camera(
    camera: int, settings: PredictionSettings, seconds: float | None = None
) -> PredictionReport:
    """Label the frames of a camera until it ends, time is up or Ctrl-C is pressed.

    Args:
        camera: 0 is the first.
        settings: how, and where to: ``overlays/camera_0.mp4`` and ``results/camera_0.json``.
        seconds: time after which to stop, of the camera's frames; None for no limit.

    Raises:
        ImageReadError, OSError, ValueError: there is no such camera, a result cannot be written, or
            a setting cannot be used.
    """
    writer = _ResultWriter(settings)
    name = PurePath(f"camera_{camera}")
    with VideoSource(camera, settings.frame_step) as source:
        shown = tqdm(source, desc="labelling", unit="frame", file=sys.stderr)
        frames = itertools.takewhile(lambda f: seconds is None or f.seconds < seconds, shown)
        result = writer.write_frames(name, frames, source.rate, ends_when_interrupted=True)
    if result["frames"]:
        writer.write_result(name, result)
    return PredictionReport(written=1 if result["frames"] else 0)


@dataclass(frozen=True, slots=True)
class _FrameShares:
    """The classes of a frame, small in memory: a video may have a hundred thousand frames."""

    seconds: float
    shares: NDArray[np.float64]  # (classes, 3): index, share, similarity

    @classmethod
    def pack(cls, seconds: float, shares: Sequence[ClassShare]) -> "_FrameShares":
        rows = [(share.index, share.share, share.similarity) for share in shares]
        return cls(seconds, np.array(rows, dtype=np.float64))

    def unpack(self, names: Sequence[str]) -> dict[str, Any]:
        classes = [
            asdict(ClassShare(int(index), names[int(index)], share, similarity))
            for index, share, similarity in self.shares.tolist()
        ]
        return {"seconds": self.seconds, "classes": classes}


class _ResultWriter:
    """Labels one input at a time and writes its files."""

    def __init__(self, settings: PredictionSettings) -> None:
        self._settings = settings
        self._names = read_vocabulary(settings.vocabulary)
        cfg = load_config(settings.config_file, settings.overrides)
        if settings.frame_step < 1:
            raise ValueError(
                f"The step between frames is {settings.frame_step}; expected 1 at least."
            )
        cfg.OUTPUT_DIR = ""
        weights = settings.weights or cfg.MODEL.WEIGHTS
        made_with = {
            "config": cfg.dump(),
            "weights": _identify(Path(weights)) if weights else None,
            "names": self._names,
            "background": [settings.background_threshold, settings.background_words],
            "frame_step": settings.frame_step,
        }
        self._made_with = hashlib.sha256(json.dumps(made_with).encode()).hexdigest()

    @functools.cached_property
    def _predictor(self) -> Predictor:
        """Built when the first image needs it: where all is finished, none is."""
        settings = self._settings
        return Predictor.from_config(settings.config_file, settings.weights, settings.overrides)

    def _predict(self, image: Any) -> Prediction:
        return self._predictor(
            image,
            self._names,
            background_threshold=self._settings.background_threshold,
            background_words=self._settings.background_words,
        )

    def _path(self, kind: str, name: PurePath, suffix: str) -> Path:
        path = self._settings.output / kind / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def is_finished(self, one: PredictionInput) -> bool:
        """Whether results of the same file and settings are there."""
        path = self._settings.output / "results" / f"{one.name}.json"
        try:
            result = json.loads(path.read_bytes())
            is_same = result["made_with"] == self._made_with
            return is_same and result["file"] == _identify(one.path) and not result["problem"]
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def write(self, one: PredictionInput) -> str | None:
        """Write the files of an image or a video; return what is to be reported, if anything.

        Raises:
            ImageReadError: no part of it can be read.
        """
        if one.is_video:
            return self.write_video(one)
        self.write_image(one)
        return None

    def write_image(self, one: PredictionInput) -> None:
        """Write an image's files."""
        prediction = self._predict(one.path)
        prediction.save(self._path("overlays", one.name, ".jpg"))
        prediction.save_labels(self._path("labels", one.name, ".png"))
        height, width = prediction.labels.shape
        result = {
            "file": _identify(one.path),
            "problem": None,
            "width": width,
            "height": height,
            "names": prediction.names,
            "classes": [asdict(share) for share in prediction.shares],
        }
        self.write_result(one.name, result)

    def write_video(self, one: PredictionInput) -> str | None:
        """Write a video's files; return what is to be reported of it, if anything."""
        with VideoSource(one.path, self._settings.frame_step) as source:
            frames = tqdm(
                source,
                _printable(str(one.path)),
                source.count,
                leave=False,
                unit="frame",
                file=sys.stderr,
            )
            result = self.write_frames(one.name, frames, source.rate)
        count, problem = len(result["frames"]), None
        if not count:
            raise ImageReadError(f"{one.path} has no frame that can be read")
        # What a file announces may be off by a few frames.
        if source.count and count < 0.95 * source.count:
            problem = f"{one.path} breaks off: {count} of {source.count} frames could be read"
        self.write_result(one.name, {"file": _identify(one.path), "problem": problem, **result})
        return problem

    def write_frames(
        self,
        name: PurePath,
        frames: Iterable[Frame],
        rate: float,
        ends_when_interrupted: bool = False,
    ) -> dict[str, Any]:
        """Write the overlays of frames; return the names of the classes and each frame's shares."""
        results: list[_FrameShares] = []
        names: Sequence[str] = self._names
        with write_video(self._path("overlays", name, ".mp4"), rate) as target:
            try:
                for frame in frames:
                    prediction = self._predict(frame.pixels)
                    names = prediction.names
                    target.add(_draw_frame(prediction))
                    results.append(_FrameShares.pack(frame.seconds, prediction.shares))
            except KeyboardInterrupt:
                if not ends_when_interrupted:
                    raise
        return {"names": names, "frames": results}

    def write_result(self, name: PurePath, result: Mapping[str, Any]) -> None:
        """Write the JSON that says that all else is written."""
        encoder = json.JSONEncoder(indent=1, default=lambda frame: frame.unpack(result["names"]))
        with atomic_writer(self._path("results", name, ".json")) as file:
            for text in encoder.iterencode({**result, "made_with": self._made_with}):
                file.write(text.encode())


def _draw_frame(prediction: Prediction) -> Picture:
    """An overlay whose legend has all names, so that it stays the same through a video."""
    picture = np.asarray(prediction.draw(legend=False))
    if len(prediction.names) > _MAX_VIDEO_LEGEND:
        return picture
    return add_legend(picture, _all_entries(prediction.names, prediction.background_index))


def _all_entries(names: Sequence[str], background_index: int | None) -> list[LegendEntry]:
    colours = [(red, green, blue) for red, green, blue in class_colours(len(names)).tolist()]
    return [
        LegendEntry(name, None if index == background_index else colours[index])
        for index, name in enumerate(names)
    ]


def _printable(text: str) -> str:
    """The text with escapes for bytes of file names that are no text."""
    return text.encode(errors="backslashreplace").decode()


def _identify(path: Path) -> dict[str, Any]:
    """A file's path, size and time of the last change: when they stay, so does the content."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise FileNotFoundError(f"The file {str(path)!r} does not exist.") from None
    return {"path": str(path), "bytes": status.st_size, "changed": status.st_mtime_ns}
