"""Copy SA-1B, or images in its layout, with smaller images and masks, as published training did.

The copy has the same layout and names, so it is read like the original.
"""

import fcntl
import io
import json
import logging
import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pixelclip.data.images import ImageReadError
from pixelclip.data.rle import RLEError
from pixelclip.data.sa1b import SA1BRecords, load_sa1b
from pixelclip.data.sa1b_files import CorruptRecordError
from pixelclip.data.sa1b_index import JSON_SUFFIX
from pixelclip.data.sa1b_record_resize import ResizedRecord, resize_record
from pixelclip.utils.atomic_write import atomic_writer, write_text
from pixelclip.utils.workers import run_tasks

logger = logging.getLogger(__name__)

_STATE_FILE = ".resize_sa1b.json"  # hidden, so that it is not taken for an annotation
_Result = ResizedRecord | CorruptRecordError


@dataclass(frozen=True)
class ResizeReport:
    """What is in the resized copy; ``print`` it for a summary.

    Attributes:
        resized: tars and folders that this run has made.
        kept: those that an earlier run had finished.
        images: images in the copy.
        unchanged: those among them that were small enough, copied byte for byte.
        dropped_masks: masks that have no pixel at the smaller size, and are left out.
        bytes_before, bytes_after: of the tars, and of the files in folders.
        problems: what could not be used and is left out, one sentence each.
    """

    resized: int
    kept: int
    images: int
    unchanged: int
    dropped_masks: int
    bytes_before: int
    bytes_after: int
    problems: tuple[str, ...]

    def __str__(self) -> str:
        percent = 100 * self.bytes_after / max(1, self.bytes_before)
        return "\n".join(
            [
                *(f"problem: {problem}" for problem in self.problems),
                f"{self.resized} tars and folders resized, {self.kept} were finished before.",
                f"{self.images} images, {self.unchanged} of them small enough and unchanged; "
                f"{self.dropped_masks} masks vanished at this size.",
                f"{self.bytes_before / 1e9:.3f} GB before, {self.bytes_after / 1e9:.3f} GB after "
                f"({percent:.0f}%).",
            ]
        )


def resize_sa1b(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    short_side: int = 750,
    workers: int | None = None,
) -> ResizeReport:
    """Copy tars, and folders of images next to JSON files, with a smaller short side of the images.

    A tar becomes a tar of the same name, a folder a folder. Each is finished as a whole: an
    interrupted run resumes with the next one, and one that changed since, or that was made with
    another short side, is made again. A corrupt image, JSON or mask leaves its image out.

    Args:
        source: the folder that :func:`pixelclip.data.sa1b.load_sa1b` would read.
        output: the folder of the copy; it is created.
        short_side: of the copied images, in pixels; those that are not larger stay as they are.
        workers: processes that share the images of all tars; by default one for each core.

    Raises:
        ValueError: a short side or number of workers below 1, or one folder is inside the other.
        FileNotFoundError: ``source`` does not exist or holds no image with masks.
        FileExistsError: a copy would replace a file that no earlier run has made.
        TarIndexError: a tar is compressed, or not a tar.
        OSError: the copy cannot be written (no permission, disk full); it names the file.
    """
    workers = os.cpu_count() or 1 if workers is None else workers
    for name, value in (("short side", short_side), ("number of workers", workers)):
        if value < 1:
            raise ValueError(f"the {name} is {value}; expected at least 1")
    source, output = (os.path.realpath(os.path.expanduser(folder)) for folder in (source, output))
    if os.path.commonpath([source, output]) in (source, output):
        raise ValueError(f"{output} and {source} are the same or nested; keep them apart")
    records = _load(source)
    os.makedirs(output, exist_ok=True)
    with _lock(output):
        parts = [_Part(one, source, output, short_side) for one in records.split()]
        outcomes = _resize_all(parts, output, short_side, workers)
    resized = sum(outcome is part.outcome for part, outcome in zip(parts, outcomes, strict=True))
    return _report(outcomes, resized, records.problems)


def _load(source: str) -> SA1BRecords:
    if not os.path.isdir(source):
        raise FileNotFoundError(f"{source} is not a folder; give the one that holds SA-1B's tars")
    try:
        return load_sa1b(source)
    except FileNotFoundError as error:
        expected = "give the folder that holds SA-1B's tars, or images (.jpg) next to .json files"
        raise FileNotFoundError(f"{source} holds no image with masks; {expected}") from error


@contextmanager
def _lock(folder: str) -> Iterator[None]:
    """Wait until no other process of this machine makes a copy in a folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        # Where a network file system has no locks, two processes may do the same work twice.
        with suppress(OSError):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.warning("Another process resizes into %s; waiting for its end.", folder)
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@dataclass
class _Outcome:
    """What is known about the copy of a tar or folder; kept for the next run."""

    short_side: int
    bytes_before: int
    time_before: int  # latest change of its files, in nanoseconds
    images: int = 0
    unchanged: int = 0
    dropped_masks: int = 0
    bytes_after: int = 0
    is_final: bool = True  # whether the same would come out again
    problems: list[str] = field(default_factory=list)

    def add(self, result: _Result) -> None:
        """Count an image or a problem."""
        if isinstance(result, CorruptRecordError):
            self.problems.append(str(result))
            # A file that could not be read, perhaps for a moment only, is tried again next time.
            self.is_final &= result.kind != "file"
        else:
            self.images += 1
            self.unchanged += result.is_unchanged
            self.dropped_masks += result.dropped_masks


class _Part:
    """The records of a tar or of a folder, where their copies go, and what came of it."""

    def __init__(self, records: SA1BRecords, source: str, output: str, short_side: int) -> None:
        self.records = records
        self.is_tar = records[0]["tar_version"] is not None
        originals = chain.from_iterable(map(_paths, records[:1] if self.is_tar else records[:]))
        # original -> copy: a single one for a tar
        self.files = {
            path: os.path.join(output, os.path.relpath(path, source)) for path in originals
        }
        places = _paths(records[0]) if self.is_tar else map(os.path.dirname, _paths(records[0]))
        self.name = " + ".join(dict.fromkeys(os.path.relpath(place, source) for place in places))
        status = [os.stat(path) for path in self.files]
        size, time = sum(one.st_size for one in status), max(one.st_mtime_ns for one in status)
        self.outcome = _Outcome(short_side, size, time)

    def is_finished(self, before: _Outcome) -> bool:
        """Whether its copies are those of an earlier outcome, and would be the same again."""
        keys = ("short_side", "bytes_before", "time_before")
        is_same = all(getattr(self.outcome, key) == getattr(before, key) for key in keys)
        return is_same and before.is_final and before.bytes_after == self._bytes_after()

    def write(self, results: Iterator[_Result]) -> None:
        """Write the copies of all records, which are taken from an iterator."""
        for folder in {os.path.dirname(path) for path in self.files.values()}:
            os.makedirs(folder, exist_ok=True)
        (self._write_tar if self.is_tar else self._write_files)(self._usable(results))
        self.outcome.bytes_after = self._bytes_after()

    def _usable(self, results: Iterator[_Result]) -> Iterator[tuple[int, ResizedRecord]]:
        """The records that can be used, with their positions."""
        for position, result in enumerate(islice(results, len(self.records))):
            self.outcome.add(result)
            if isinstance(result, ResizedRecord):
                yield position, result
            elif not self.is_tar:  # an earlier run may have copied it, perhaps at another size
                for path in _paths(self.records[position]):
                    Path(self.files[path]).unlink(missing_ok=True)

    def _write_files(self, resized: Iterator[tuple[int, ResizedRecord]]) -> None:
        for position, files in resized:
            for path, content in zip(_paths(self.records[position]), files[:2], strict=True):
                with atomic_writer(self.files[path]) as file:
                    file.write(content)

    def _write_tar(self, resized: Iterator[tuple[int, ResizedRecord]]) -> None:
        (copy,) = self.files.values()
        seen = Counter[str]()
        with atomic_writer(copy) as file, tarfile.open(fileobj=file, mode="w") as tar:
            for position, files in resized:
                stem = self.records[position]["image_id"]
                # SA-1B's tars are flat; names that recur in another folder stay apart.
                folder = f"./{seen[stem]}/" if seen[stem] else "./"
                seen[stem] += 1
                names = self.records.image_name(position), stem + JSON_SUFFIX
                for name, content in zip(names, files[:2], strict=True):
                    member = tarfile.TarInfo(folder + name)
                    member.size = len(content)
                    member.mtime = self.outcome.time_before // 10**9
                    tar.addfile(member, io.BytesIO(content))

    def _bytes_after(self) -> int:
        """Bytes of the copies that exist."""
        return sum(os.path.getsize(path) for path in self.files.values() if os.path.exists(path))


def _paths(record: Mapping[str, Any]) -> tuple[str, str]:
    return record["file_name"], record["annotation_file_name"]


def _resize_all(parts: list[_Part], output: str, short_side: int, workers: int) -> list[_Outcome]:
    """Make what is missing of the copy; return what is known about each part."""
    state_file = os.path.join(output, _STATE_FILE)
    outcomes = _load_outcomes(state_file)
    _refuse_foreign_files(parts, outcomes)
    pending = [
        part
        for part in parts
        if part.name not in outcomes or not part.is_finished(outcomes[part.name])
    ]
    total = sum(len(part.records) for part in pending)
    tasks = chain.from_iterable(part.records for part in pending)
    # One stream over all tars: every core works on the same tar, and none waits for its end.
    results = run_tasks(partial(_try_to_resize, short_side), tasks, min(workers, max(1, total)))
    with tqdm(desc="Resizing", total=total, unit=" images", disable=not total) as progress:
        for part in pending:
            # A run that is killed now leaves it unfinished, whatever was there before.
            outcomes[part.name] = replace(part.outcome, is_final=False)
            _keep_outcomes(state_file, outcomes)
            part.write(_counted(results, progress))
            outcomes[part.name] = part.outcome
            _keep_outcomes(state_file, outcomes)
    return [outcomes[part.name] for part in parts]


def _refuse_foreign_files(parts: Iterable[_Part], outcomes: Mapping[str, _Outcome]) -> None:
    for path in chain.from_iterable(
        part.files.values() for part in parts if part.name not in outcomes
    ):
        if os.path.lexists(path):
            raise FileExistsError(
                f"{path} would be replaced, but is not a copy that an earlier run made here; move "
                "it away or choose another output"
            )


def _counted(results: Iterable[_Result], progress: "tqdm[Any]") -> Iterator[_Result]:
    for result in results:
        progress.update()
        yield result


def _load_outcomes(path: str) -> dict[str, _Outcome]:
    with suppress(FileNotFoundError):
        try:
            content = json.loads(Path(path).read_bytes())
            return {name: _Outcome(**outcome) for name, outcome in content.items()}
        except (ValueError, TypeError, AttributeError) as error:
            logger.warning("%s is unreadable; what is finished is not known: %s", path, error)
    return {}


def _keep_outcomes(path: str, outcomes: Mapping[str, _Outcome]) -> None:
    content = {name: asdict(outcome) for name, outcome in outcomes.items()}
    write_text(path, json.dumps(content, indent=1))


def _report(
    outcomes: Sequence[_Outcome], resized: int, source_problems: Sequence[str]
) -> ResizeReport:
    keys = ("images", "unchanged", "dropped_masks", "bytes_before", "bytes_after")
    return ResizeReport(
        resized=resized,
        kept=len(outcomes) - resized,
        problems=(*source_problems, *(text for one in outcomes for text in one.problems)),
        **{key: sum(getattr(one, key) for one in outcomes) for key in keys},
    )


def _try_to_resize(short_side: int, record: Mapping[str, Any]) -> _Result:
    where = f"{record['file_name']}: {record['image_id']}"
    try:
        return resize_record(record, short_side)
    except CorruptRecordError as error:
        return CorruptRecordError(f"{where}: {error}", error.kind)
    except ImageReadError as error:
        return CorruptRecordError(f"{where}: {error}", "image")
    except RLEError as error:
        return CorruptRecordError(f"{where}: {error}", "masks")
