"""Label images and videos, and write the results as files.

In the output folder, an image ``a.jpg`` gets ``a_overlay.jpg``, ``a_labels.png`` and
``a_classes.json``, a video ``b.mov`` gets ``b_overlay.mp4`` and ``b_classes.json``. What lies in a
folder that was given keeps its place below it. The JSON of a file that cannot be read says why.
"""

import contextlib
import functools
import glob
import hashlib
import itertools
import json
import logging
import os
import urllib.parse
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from pixelclip.checkpoint import fetch_weights
from pixelclip.data.images import IMAGE_SUFFIXES, ImageReadError, is_address
from pixelclip.data.vocabularies import read_vocabulary
from pixelclip.inference.annotations import AnnotationSettings, write_annotations
from pixelclip.inference.predictor import Predictor, load_predictor_config
from pixelclip.inference.result import ClassShare, Prediction
from pixelclip.inference.video import Frame, VideoSource, write_video
from pixelclip.modeling.clip_loader import get_clip_note
from pixelclip.utils.atomic_write import atomic_writer
from pixelclip.utils.shards import WHOLE, Shard, WorkStatus

logger = logging.getLogger(__name__)

# Up to this number, the last line of a run names each file.
_MOST_NAMED = 6
# What the name of an input gets: an image's, a video's, and that of both.
_RESULTS = ("_overlay.jpg", "_labels.png", "_overlay.mp4", "_classes.json")
_OVERLAY, _LABELS, _VIDEO, _CLASSES = _RESULTS
_VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")


@dataclass(frozen=True)
class PredictionSettings:
    """How images and videos are labeled, and where the results are written.

    Attributes:
        output: folder; created where it is missing.
        frame_step: N, to label every Nth frame of a video.
        annotations: what is written about all images, for annotation tools.
        others: see :meth:`Predictor.from_config` and :meth:`Predictor.__call__`.
    """

    vocabulary: Sequence[str] | str
    output: Path
    config_file: str = ""
    weights: str = ""
    overrides: Sequence[str] = ()
    background_threshold: float | None = None
    background_words: Sequence[str] | None = None
    frame_step: int = 1
    annotations: AnnotationSettings | None = None


@dataclass
class PredictionReport:
    """The outcome for all inputs.

    Attributes:
        written: number of images and videos that this run labeled.
        kept: number of those with results of the same file and settings from before.
        problems: by path, why there is no result or only part of one, with the path; what is not
            text is escaped.
        files: that this run wrote.
    """

    written: int = 0
    kept: int = 0
    problems: dict[str, str] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    def summarize(self, output: Path) -> str:
        """One line: how much was labeled, and where the results are."""
        counts = [f"{self.written} labeled"]
        counts += [f"{self.kept} labeled before"] * bool(self.kept)
        counts += [f"{len(self.problems)} with problems"] * bool(self.problems)
        files = ", ".join(map(_printable, self.files))
        if len(self.files) > _MOST_NAMED:
            files = f"{len(self.files)} files in {output}"
        where = f"wrote {files}" if files else f"results in {output}"
        return f"{', '.join(counts)}; {where}"


class PredictionInput(NamedTuple):
    """An image or a video, by its path or address, and how its results in the output begin."""

    path: Path | str
    name: PurePath
    is_video: bool


def predict_files(
    patterns: Sequence[str | os.PathLike[str]],
    settings: PredictionSettings,
    shard: Shard = WHOLE,
) -> PredictionReport:
    """Label images and videos; what cannot be read is skipped, counted and reported.

    After an interruption, the same call resumes and keeps the results of the same file, weights and
    settings. Files are complete or absent; a result's JSON is written last. A call without a shard
    then writes the annotations of all results.

    Args:
        patterns, settings: see :func:`find_inputs`, and how these are labeled.
        shard: the inputs to do; the report is of these.

    Raises:
        FileNotFoundError: a missing config, checkpoint or input, see :func:`find_inputs`.
        ValueError, OSError: a setting that cannot be used; a result that cannot be written.
    """
    report = PredictionReport()
    writer = _ResultWriter(settings, report.files)
    inputs = [one for one in find_inputs(patterns, settings.output) if shard.owns(one.name)]
    if shard.local_count > 1 and (gpus := torch.cuda.device_count()):
        torch.cuda.set_device(shard.local_gpus(gpus)[0])
    for one in tqdm(inputs, shard.label("labeling"), unit="file"):
        if writer.is_finished(one):
            report.kept += 1
            continue
        try:
            problem = writer.write_video(one) if one.is_video else writer.write_image(one)
            report.written += 1
        except ImageReadError as error:
            named = str(error).startswith(str(one.path))
            problem = str(error) if named else f"{one.path}: {error}"
            writer.write_problem(one, problem)
        if problem:
            report.problems[_printable(one.path)] = _printable(problem)
    if (style := settings.annotations) and shard.is_whole:
        report.files += write_annotations(style, settings.output, inputs, writer.read_result)
    return report


def find_prediction_status(
    patterns: Sequence[str | os.PathLike[str]], settings: PredictionSettings
) -> WorkStatus:
    """How many inputs have results of the same file and settings; no model is loaded.

    Raises:
        FileNotFoundError, ValueError: see :func:`predict_files`.
    """
    writer = _ResultWriter(settings, [])
    inputs = find_inputs(patterns, settings.output)
    return WorkStatus({one.name: writer.find_problem(one) for one in inputs})


def predict_camera(
    camera: int, settings: PredictionSettings, seconds: float | None = None
) -> PredictionReport:
    """Label the frames of a camera until it ends, time is up or Ctrl-C is pressed.

    Camera 0 is the first: ``camera_0_overlay.mp4`` and ``camera_0_classes.json``. The limit of
    seconds is counted in the camera's frames.

    Raises:
        ImageReadError, OSError, ValueError: no such camera, an unwritable result, a bad setting.
    """
    report = PredictionReport()
    writer = _ResultWriter(settings, report.files)
    name = PurePath(f"camera_{camera}")
    with VideoSource(camera, settings.frame_step) as source:
        tracked = tqdm(source, desc="labeling", unit="frame")
        frames = itertools.takewhile(lambda f: seconds is None or f.seconds < seconds, tracked)
        result = writer.write_frames(name, frames, source.rate, is_camera=True)
    if result["frames"]:
        writer.write_result(name, result)
        report.written = 1
    return report


def find_inputs(
    patterns: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str]
) -> list[PredictionInput]:
    """Images and videos, each once, under names that differ even where letter case is ignored.

    Args:
        patterns: files, folders (with all folders in them), globs such as "photos/**/*.jpg", and
            addresses of images. Hidden files in folders are skipped; a file that is named may have
            any suffix.
        output: folder of the results, which are not inputs.

    Raises:
        FileNotFoundError: a pattern that matches nothing; the text names it.
        FileExistsError: an input lies where a result would be written.
    """
    places: dict[str, tuple[Path | str, PurePath]] = {}
    output = Path(output).resolve()
    for pattern in patterns:
        for path, place in _expand(os.path.expanduser(pattern), output):
            real = path if isinstance(path, str) else os.path.realpath(path)
            places.setdefault(real, (path, place))
    names = _name_results([place for _, place in places.values()])
    results = {f"{output / name}{suffix}" for name in names for suffix in _RESULTS}
    for path in results & places.keys():
        if not _is_result(Path(path), output):
            raise FileExistsError(
                f"The input {path} would be replaced by a result: choose another output, or remove "
                "this file if an interrupted run has left it."
            )
    return [
        PredictionInput(path, name, place.suffix.lower() in _VIDEO_SUFFIXES)
        for (real, (path, place)), name in zip(places.items(), names, strict=True)
        if real not in results
    ]


def _expand(pattern: str, output: Path) -> list[tuple[Path | str, PurePath]]:
    """The inputs that a pattern means, each with its place in the output folder."""
    if is_address(pattern):
        path = urllib.parse.unquote(urllib.parse.urlparse(pattern).path)
        return [(pattern, PurePath(PurePath(path).name or "image"))]
    if os.path.isdir(pattern):
        found, root = _walk(pattern), Path(pattern)
    elif os.path.exists(pattern):
        return [(Path(pattern), PurePath(PurePath(pattern).name))]
    else:
        found = filter(Path.is_file, map(Path, sorted(glob.glob(pattern, recursive=True))))
        fixed = itertools.takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts)
        root = Path(*fixed)
    inputs = [path for path in found if not _is_result(path, output)]
    if not inputs:
        known = ", ".join(IMAGE_SUFFIXES + _VIDEO_SUFFIXES)
        text = "is not a file, a glob that matches a file, or a folder of images or videos"
        raise FileNotFoundError(f"{pattern!r} {text} ({known}).")
    return [(path, path.relative_to(root)) for path in inputs]


def _is_result(path: Path, output: Path) -> bool:
    """Whether a file was written by an earlier run, into an output folder among the inputs."""
    if output not in path.resolve().parents:
        return False
    stems = {path.name.removesuffix(suffix) for suffix in _RESULTS}
    return any(path.with_name(stem + _CLASSES).is_file() for stem in stems - {path.name})


def _walk(folder: str) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(root, name) for name in sorted(files) if not name.startswith(".")):
            if path.suffix.lower() in IMAGE_SUFFIXES + _VIDEO_SUFFIXES:
                yield path


def _name_results(places: Sequence[PurePath]) -> list[PurePath]:
    """Name the results like the inputs, with the suffix where a.jpg and a.png lie in one folder."""
    stems = [place.with_suffix("") for place in places]
    distinct_places = {_ignore_case(place): place for place in places}.values()
    counts = Counter(_ignore_case(place.with_suffix("")) for place in distinct_places)
    names = [
        place if counts[_ignore_case(stem)] > 1 else stem
        for place, stem in zip(places, stems, strict=True)
    ]
    if len(set(map(_ignore_case, names))) < len(distinct_places):  # a.jpg, a.png and a.jpg.png
        names = list(places)
    distinct: dict[str, PurePath] = {}
    uses = Counter[str]()
    for wanted in names:  # a.jpg and A.jpg, or those of two folders
        name = wanted
        while _ignore_case(name) in distinct:
            uses[_ignore_case(wanted)] += 1
            name = wanted.with_name(f"{wanted.name}_{uses[_ignore_case(wanted)] + 1}")
        distinct[_ignore_case(name)] = name
    return list(distinct.values())


def _ignore_case(place: PurePath) -> str:
    return str(place).casefold()


class _ResultWriter:
    """Labels one input at a time and writes its files."""

    def __init__(self, settings: PredictionSettings, files: list[Path]) -> None:
        self._settings, self._files = settings, files
        self._names = read_vocabulary(settings.vocabulary)
        self._needs_regions = False
        if settings.annotations:
            settings.annotations.check_names(self._names)
            self._needs_regions = settings.annotations.has_regions
        if settings.frame_step < 1:
            raise ValueError(f"The frame step is {settings.frame_step}; expected at least 1.")
        cfg = load_predictor_config(settings.config_file, settings.weights, settings.overrides)
        cfg.OUTPUT_DIR = cfg.MODEL.DEVICE = ""  # where results are made does not matter
        weights = cfg.MODEL.WEIGHTS
        self._background: dict[str, Any] = {
            "background_threshold": settings.background_threshold,
            "background_words": settings.background_words,
        }
        identity = _identify_weights(weights) if weights else None
        if note := get_clip_note(cfg.MODEL.CLIP.ARCH):
            logger.warning(note)
        made_with = [cfg.dump(), identity, self._names, self._background, settings.frame_step]
        self._made_with = hashlib.sha256(json.dumps(made_with).encode()).hexdigest()

    @functools.cached_property
    def _predictor(self) -> Predictor:
        """Built for the first image that is not finished."""
        settings = self._settings
        return Predictor.from_config(settings.config_file, settings.weights, settings.overrides)

    def _predict(self, image: Any) -> Prediction:
        return self._predictor(image, self._names, **self._background)

    def _path(self, name: PurePath, suffix: str) -> Path:
        """Where a result is written."""
        path = self._settings.output / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._files.append(path)
        return path

    def is_finished(self, one: PredictionInput) -> bool:
        """Whether there are results of the same file and settings, without a problem."""
        return self.find_problem(one) == ""

    def find_problem(self, one: PredictionInput) -> str | None:
        """The problem of a result, "" without one, or None without a result of the same kind."""
        result = self.read_result(one)
        return None if result is None else result["problem"] or ""

    def read_result(self, one: PredictionInput) -> dict[str, Any] | None:
        """The JSON of the same file and settings, with what is needed of them, or None."""
        path = self._settings.output / f"{one.name}{_CLASSES}"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            result = json.loads(path.read_bytes())
            is_same = result["made_with"] == self._made_with
            if is_same and result["file"] == _identify(one.path):
                return result if self._is_whole(one, result) else None
        return None

    def _is_whole(self, one: PredictionInput, result: Mapping[str, Any]) -> bool:
        """Whether a result has what the annotations need."""
        if self._settings.annotations is None or one.is_video or result["problem"]:
            return True
        labels = self._settings.output / f"{one.name}{_LABELS}"
        return "regions" in result if self._needs_regions else labels.is_file()

    def write_image(self, one: PredictionInput) -> str | None:
        """Write an image's files; there is no problem to be reported."""
        prediction = self._predict(one.path)
        self._discard_other_result(one)
        prediction.save(self._path(one.name, _OVERLAY))
        prediction.save_labels(self._path(one.name, _LABELS))
        result: dict[str, Any] = {"file": _identify(one.path), "problem": None}
        result["height"], result["width"] = prediction.labels.shape
        result |= {"names": prediction.names, "classes": list(map(asdict, prediction.shares))}
        if self._needs_regions:
            result["regions"] = list(map(asdict, prediction.regions))
        self.write_result(one.name, result)
        return None

    def write_video(self, one: PredictionInput) -> str | None:
        """Write a video's files; return the problem to be reported, if any."""
        with VideoSource(one.path, self._settings.frame_step) as source:
            frames = tqdm(source, _printable(one.path), source.count, leave=False, unit="frame")
            self._discard_other_result(one)
            result = self.write_frames(one.name, frames, source.rate)
        count, problem = len(result["frames"]), None
        if not count:
            raise ImageReadError(f"{one.path} has no frame that can be read")
        # What a file announces may be off by a few frames.
        if source.count and count < 0.95 * source.count:
            problem = f"{one.path} is cut off: {count} of {source.count} frames could be read"
        self.write_result(one.name, {"file": _identify(one.path), "problem": problem, **result})
        return problem

    def write_problem(self, one: PredictionInput, problem: str) -> None:
        """Write why there is no result; the next run tries again."""
        self.write_result(one.name, {"file": _identify(one.path), "problem": problem})
        self._files.pop()  # nothing was labeled

    def write_frames(
        self, name: PurePath, frames: Iterable[Frame], rate: float, is_camera: bool = False
    ) -> dict[str, Any]:
        """Write the overlays of frames; return names and, in small arrays, each frame's shares."""
        results: list[dict[str, Any]] = []
        names: Sequence[str] = self._names
        ending = contextlib.suppress(*[KeyboardInterrupt] * is_camera)
        with write_video(self._path(name, _VIDEO), rate) as target, ending:
            for frame in frames:
                prediction = self._predict(frame.pixels)
                names = prediction.names
                target.add(prediction.draw_frame())
                rows = [(s.index, s.share, s.similarity) for s in prediction.shares]
                results.append({"seconds": frame.seconds, "classes": np.array(rows)})
        if not results:
            self._files.pop()  # no frame, no video
        return {"names": names, "frames": results}

    def _discard_other_result(self, one: PredictionInput) -> None:
        """Remove the JSON of other settings, which must not belong to the files that now follow."""
        if self.read_result(one) is None:  # else another process was faster
            (self._settings.output / f"{one.name}{_CLASSES}").unlink(missing_ok=True)

    def write_result(self, name: PurePath, result: Mapping[str, Any]) -> None:
        """Write the JSON that says that all else is written."""

        def unpack(rows: np.ndarray) -> list[dict[str, Any]]:
            names = result["names"]
            return [asdict(ClassShare(int(i), names[int(i)], *row)) for i, *row in rows.tolist()]

        encoder = json.JSONEncoder(indent=1, default=unpack)
        with atomic_writer(self._path(name, _CLASSES)) as file:
            for text in encoder.iterencode({**result, "made_with": self._made_with}):
                file.write(text.encode())


def _printable(text: str | Path) -> str:
    """The text with escapes for bytes of file names that are not text."""
    return str(text).encode(errors="backslashreplace").decode()


def _identify_weights(weights: str) -> dict[str, Any]:
    """As :func:`_identify`, and the same for the downloads of several machines."""
    path = fetch_weights(weights)
    if os.path.exists(weights):
        return _identify(path)
    # In the cache of the hub, a file leads to one that is named by a hash of its content.
    return {"file": os.path.basename(os.path.realpath(path)), "bytes": os.path.getsize(path)}


def _identify(path: Path | str) -> dict[str, Any]:
    """A file's path, size and time of the last change: when they stay, so does the content.

    Of an address, there is no more than the address itself.
    """
    if not os.path.exists(path):
        return {"path": str(path)}
    status = os.stat(path)
    return {"path": str(path), "bytes": status.st_size, "changed": status.st_mtime_ns}
