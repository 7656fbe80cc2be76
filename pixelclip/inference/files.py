"""Label images and videos, and write the results as files.

Below the output folder, an image ``photos/a.jpg`` gets ``overlays/photos/a.jpg``,
``labels/photos/a.png`` and ``results/photos/a.json``; a video ``clips/b.mov`` gets
``overlays/clips/b.mp4`` and ``results/clips/b.json``.
"""

import contextlib
import functools
import glob
import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from pixelclip.data.images import ImageReadError
from pixelclip.data.vocabularies import read_vocabulary
from pixelclip.engine.setup import load_config
from pixelclip.inference.predictor import Predictor
from pixelclip.inference.result import ClassShare, Prediction
from pixelclip.inference.video import Frame, VideoSource, write_video
from pixelclip.utils.atomic_write import atomic_writer
from pixelclip.utils.visualization import ImageArray, LegendEntry, add_legend

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
_VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")


@dataclass(frozen=True)
class PredictionSettings:
    """How images and videos are labeled, and where the results are written.

    Attributes:
        output: folder; created where it is missing.
        frame_step: label the first of every so many frames of a video.
        others: see :meth:`Predictor.from_config` and :meth:`Predictor.__call__`.
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
    """The outcome for all inputs.

    Attributes:
        written: number of images and videos that this run labeled.
        kept: number of those with results of the same file and settings from before.
        problems: by path, why there is no result or only part of one; what is not text is escaped.
    """

    written: int = 0
    kept: int = 0
    problems: dict[str, str] = field(default_factory=dict)


class PredictionInput(NamedTuple):
    """An image or a video, and the place of its results below the output folder."""

    path: Path
    name: PurePath
    is_video: bool


def predict_files(
    patterns: Sequence[str | os.PathLike[str]], settings: PredictionSettings
) -> PredictionReport:
    """Label images and videos; what cannot be read is skipped, counted and reported.

    After an interruption, the same call resumes: finished results are kept where file, weights and
    settings are the same. Every file is complete or absent; a result's JSON is written last.

    Raises:
        FileNotFoundError: a missing config, checkpoint or input, see :func:`find_inputs`.
        ValueError: a setting that cannot be used.
        OSError: a result cannot be written.
    """
    writer = _ResultWriter(settings)
    report = PredictionReport()
    for one in tqdm(find_inputs(patterns, settings.output), "labeling", unit="file"):
        if writer.is_finished(one):
            report.kept += 1
            continue
        try:
            problem = writer.write_video(one) if one.is_video else writer.write_image(one)
            report.written += 1
        except ImageReadError as error:
            problem = str(error)
        if problem:
            report.problems[_printable(one.path)] = _printable(problem)
    return report


def predict_camera(
    camera: int, settings: PredictionSettings, seconds: float | None = None
) -> PredictionReport:
    """Label the frames of a camera until it ends, time is up or Ctrl-C is pressed.

    Camera 0 is the first: ``overlays/camera_0.mp4`` and ``results/camera_0.json``. The limit of
    seconds is counted in the camera's frames.

    Raises:
        ImageReadError, OSError, ValueError: no such camera, an unwritable result, a bad setting.
    """
    writer = _ResultWriter(settings)
    name = PurePath(f"camera_{camera}")
    with VideoSource(camera, settings.frame_step) as source:
        tracked = tqdm(source, desc="labeling", unit="frame")
        frames = itertools.takewhile(lambda f: seconds is None or f.seconds < seconds, tracked)
        result = writer.write_frames(name, frames, source.rate, is_camera=True)
    if result["frames"]:
        writer.write_result(name, result)
    return PredictionReport(written=1 if result["frames"] else 0)


def find_inputs(
    patterns: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str]
) -> list[PredictionInput]:
    """Images and videos, each once, under names that differ even where letter case is ignored.

    Args:
        patterns: files, folders (with all folders in them) and globs such as "photos/**/*.jpg".
            Hidden files in folders are skipped; a file that is named may have any suffix.
        output: folder of the results; files in its result folders are not inputs.

    Raises:
        FileNotFoundError: a pattern that matches nothing; the text names it.
    """
    paths: dict[str, Path] = {}
    folders = [os.path.join(output, name) for name in ("overlays", "labels", "results")]
    results = {Path(os.path.realpath(folder)) for folder in folders}
    for pattern in patterns:
        found = _expand(os.path.expanduser(pattern), results)
        if not found:
            known = ", ".join(_IMAGE_SUFFIXES + _VIDEO_SUFFIXES)
            text = "is not a file, a glob that matches a file, or a folder of images or videos"
            raise FileNotFoundError(f"{os.fspath(pattern)!r} {text} ({known}).")
        for path in found:
            paths.setdefault(os.path.realpath(path), path)
    names = _name_results(list(paths.values()))
    return [
        PredictionInput(path, name, path.suffix.lower() in _VIDEO_SUFFIXES)
        for path, name in zip(paths.values(), names, strict=True)
    ]


def _expand(pattern: str, results: set[Path]) -> list[Path]:
    if os.path.isdir(pattern):
        found = _walk(pattern)
    elif os.path.exists(pattern):
        return [Path(pattern)]
    else:
        found = filter(Path.is_file, map(Path, sorted(glob.glob(pattern, recursive=True))))
    return [path for path in found if results.isdisjoint(Path(os.path.realpath(path)).parents)]


def _walk(folder: str) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(root, name) for name in sorted(files) if not name.startswith(".")):
            if path.suffix.lower() in _IMAGE_SUFFIXES + _VIDEO_SUFFIXES:
                yield path


def _name_results(paths: Sequence[Path]) -> list[PurePath]:
    """Name the results like the files, with the suffix where a.jpg and a.png lie in one folder."""
    places = [_place(path) for path in paths]
    stems = [place.with_suffix("") for place in places]
    counts = Counter(map(_ignore_case, stems))
    names = [
        place if counts[_ignore_case(stem)] > 1 else stem
        for place, stem in zip(places, stems, strict=True)
    ]
    if len(set(map(_ignore_case, names))) < len(names):  # a.jpg, a.png and a.jpg.png
        names = places
    distinct: dict[str, PurePath] = {}
    for name in names:  # a.jpg and A.jpg
        while _ignore_case(name) in distinct:
            name = name.with_name(f"{name.name}_")
        distinct[_ignore_case(name)] = name
    return list(distinct.values())


def _ignore_case(place: PurePath) -> str:
    return str(place).casefold()


def _place(path: Path) -> PurePath:
    """The path from the current folder, or from the root: it does not depend on other inputs."""
    absolute, current = Path(os.path.abspath(path)), Path.cwd()
    return absolute.relative_to(current if current in absolute.parents else absolute.anchor)


class _ResultWriter:
    """Labels one input at a time and writes its files."""

    def __init__(self, settings: PredictionSettings) -> None:
        self._settings = settings
        self._names = read_vocabulary(settings.vocabulary)
        cfg = load_config(settings.config_file, settings.overrides)
        if settings.frame_step < 1:
            raise ValueError(f"The frame step is {settings.frame_step}; expected at least 1.")
        cfg.OUTPUT_DIR = ""
        weights = settings.weights or cfg.MODEL.WEIGHTS
        self._background: dict[str, Any] = {
            "background_threshold": settings.background_threshold,
            "background_words": settings.background_words,
        }
        identity = _identify(Path(weights)) if weights else None
        made_with = [cfg.dump(), identity, self._names, self._background, settings.frame_step]
        self._made_with = hashlib.sha256(json.dumps(made_with).encode()).hexdigest()

    @functools.cached_property
    def _predictor(self) -> Predictor:
        """Built for the first image that is not finished."""
        settings = self._settings
        return Predictor.from_config(settings.config_file, settings.weights, settings.overrides)

    def _predict(self, image: Any) -> Prediction:
        return self._predictor(image, self._names, **self._background)

    def _path(self, kind: str, name: PurePath, suffix: str) -> Path:
        path = self._settings.output / kind / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def is_finished(self, one: PredictionInput) -> bool:
        """Whether there are results of the same file and settings."""
        path = self._settings.output / "results" / f"{one.name}.json"
        try:
            result = json.loads(path.read_bytes())
            is_same = result["made_with"] == self._made_with
            return is_same and result["file"] == _identify(one.path) and not result["problem"]
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def write_image(self, one: PredictionInput) -> str | None:
        """Write an image's files; there is no problem to be reported."""
        prediction = self._predict(one.path)
        prediction.save(self._path("overlays", one.name, ".jpg"))
        prediction.save_labels(self._path("labels", one.name, ".png"))
        height, width = prediction.labels.shape
        result = {"file": _identify(one.path), "problem": None, "width": width, "height": height}
        classes = [asdict(share) for share in prediction.shares]
        self.write_result(one.name, {**result, "names": prediction.names, "classes": classes})
        return None

    def write_video(self, one: PredictionInput) -> str | None:
        """Write a video's files; return the problem to be reported, if any."""
        with VideoSource(one.path, self._settings.frame_step) as source:
            frames = tqdm(source, _printable(one.path), source.count, leave=False, unit="frame")
            result = self.write_frames(one.name, frames, source.rate)
        count, problem = len(result["frames"]), None
        if not count:
            raise ImageReadError(f"{one.path} has no frame that can be read")
        # What a file announces may be off by a few frames.
        if source.count and count < 0.95 * source.count:
            problem = f"{one.path} is cut off: {count} of {source.count} frames could be read"
        self.write_result(one.name, {"file": _identify(one.path), "problem": problem, **result})
        return problem

    def write_frames(
        self, name: PurePath, frames: Iterable[Frame], rate: float, is_camera: bool = False
    ) -> dict[str, Any]:
        """Write the overlays of frames; return names and, in small arrays, each frame's shares."""
        results: list[dict[str, Any]] = []
        names: Sequence[str] = self._names
        ending = contextlib.suppress(*[KeyboardInterrupt] * is_camera)
        with write_video(self._path("overlays", name, ".mp4"), rate) as target, ending:
            for frame in frames:
                prediction = self._predict(frame.pixels)
                names = prediction.names
                target.add(_draw_frame(prediction))
                rows = [(s.index, s.share, s.similarity) for s in prediction.shares]
                results.append({"seconds": frame.seconds, "classes": np.array(rows)})
        return {"names": names, "frames": results}

    def write_result(self, name: PurePath, result: Mapping[str, Any]) -> None:
        """Write the JSON that says that all else is written."""

        def unpack(rows: np.ndarray) -> list[dict[str, Any]]:
            names = result["names"]
            return [asdict(ClassShare(int(i), names[int(i)], *row)) for i, *row in rows.tolist()]

        encoder = json.JSONEncoder(indent=1, default=unpack)
        with atomic_writer(self._path("results", name, ".json")) as file:
            for text in encoder.iterencode({**result, "made_with": self._made_with}):
                file.write(text.encode())


def _draw_frame(prediction: Prediction) -> ImageArray:
    """An overlay whose legend has all names, so that it stays the same through a video."""
    image = np.asarray(prediction.draw(legend=False))
    if len(prediction.names) > 40:  # the legend would be larger than the image
        return image
    return add_legend(image, list(map(LegendEntry, prediction.names, prediction.legend_colors())))


def _printable(text: str | Path) -> str:
    """The text with escapes for bytes of file names that are not text."""
    return str(text).encode(errors="backslashreplace").decode()


def _identify(path: Path) -> dict[str, Any]:
    """A file's path, size and time of the last change: when they stay, so does the content."""
    status = path.stat()
    return {"path": str(path), "bytes": status.st_size, "changed": status.st_mtime_ns}
