"""Label files: train ids, what is refused, atomic writing, resuming, what the command prints."""

import os
import socket
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelclip.data.label_preparation import (
    LabelFileError,
    LabelTask,
    PreparationReport,
    convert_label,
    label_tasks,
    prepare_files,
    read_label,
    run_preparation,
)

TRAIN_IDS = {0: 255, 1: 0, 2: 1, 255: 255}
CONVERT = partial(convert_label, train_ids=TRAIN_IDS)
# End of the name of what atomic_writer leaves behind when it is killed; no process has this number.
OF_A_DEAD_PROCESS = f"{socket.gethostname()}-{2**22 + 1}-{'0' * 32}.tmp"


@pytest.fixture
def tasks(tmp_path: Path) -> list[LabelTask]:
    """Six images of 20x30 pixels with labels of the values that TRAIN_IDS has."""
    names = [f"image{index}" for index in range(6)]
    folders = tmp_path / "images", tmp_path / "raw", tmp_path / "out" / "val"
    tasks = label_tasks(names, folders, CONVERT)
    (tmp_path / "images").mkdir()
    (tmp_path / "raw").mkdir()
    for seed, task in enumerate(tasks):
        Image.new("RGB", (20, 30)).save(task.image)
        label = np.random.default_rng(seed).choice([0, 1, 2, 255], (30, 20)).astype(np.uint8)
        Image.fromarray(label).save(task.source)
    return tasks


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _convert(task: LabelTask) -> bytes:
    return task.convert(task)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(train_ids=st.dictionaries(st.integers(0, 255), st.integers(0, 255), min_size=1))
def test_every_value_becomes_its_train_id_and_others_are_refused(
    tmp_path: Path, train_ids: dict[int, int]
) -> None:
    convert = partial(convert_label, train_ids=train_ids)
    (task,) = label_tasks(["a"], [tmp_path / folder for folder in "xyz"], convert)
    for path in (task.image, task.source):
        path.parent.mkdir(exist_ok=True)
    values = np.array([list(train_ids)], np.uint8)
    Image.fromarray(values).save(task.image)
    Image.fromarray(values).save(task.source)
    with Image.open(BytesIO(_convert(task))) as label:
        assert label.mode == "L"
        assert np.array(label).tolist() == [list(train_ids.values())]
    for value in set(range(0, 256, 17)) - set(train_ids):
        values[0, -1] = value
        Image.fromarray(values).save(task.source)
        with pytest.raises(LabelFileError, match=rf"holds the values \[{value}\]"):
            _convert(task)


def test_every_pixel_is_converted(tasks: list[LabelTask]) -> None:
    prepare_files(tasks, workers=1)
    for task in tasks:
        with Image.open(task.source) as source, Image.open(task.target) as target:
            expected = np.vectorize(TRAIN_IDS.get)(np.array(source))
            assert np.array_equal(np.array(target), expected)


@pytest.mark.parametrize(
    ("allowed", "words"),
    [({1}, "expected 1;"), (range(3), "expected 0..2;"), ([255, 0, 1, 9], "0..1, 9, 255;")],
)
def test_the_values_that_a_label_may_hold_are_said(
    tasks: list[LabelTask], allowed: Collection[int], words: str
) -> None:
    Image.new("L", (20, 30), 200).save(tasks[0].source)
    with pytest.raises(LabelFileError) as caught:
        read_label(tasks[0].source, tasks[0].image, allowed)
    assert "holds the values [200]" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16", "1", "LA"])
def test_other_pixel_formats_are_refused(tasks: list[LabelTask], mode: str) -> None:
    Image.new(mode, (20, 30)).save(tasks[0].source)
    with pytest.raises(LabelFileError, match=f"image0.png: mode {mode[0]}.*palette PNG"):
        _convert(tasks[0])


@pytest.mark.parametrize("size", [(30, 20), (20, 31), (1, 1)])
def test_another_size_than_the_image_is_refused(
    tasks: list[LabelTask], size: tuple[int, int]
) -> None:
    Image.new("L", size).save(tasks[0].source)
    with pytest.raises(LabelFileError, match=r"image0\.png: .* its image's size \(20, 30\)"):
        _convert(tasks[0])


def test_the_size_of_an_image_is_the_one_that_it_is_shown_in(tasks: list[LabelTask]) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tasks[0].image, exif=turned)
    with Image.open(BytesIO(_convert(tasks[0]))) as label:
        assert label.size == (20, 30)


def test_a_damaged_label_is_refused_wherever_it_is_damaged(tasks: list[LabelTask]) -> None:
    task = tasks[0]
    whole = task.source.read_bytes()
    damaged = [whole[:length] for length in range(0, len(whole) - 12, 7)]
    for place in range(0, len(whole) - 12, 7):
        damaged.append(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
    for content in [*damaged, b"\0" * 1000, b"<html>not found</html>"]:
        task.source.write_bytes(content)
        with pytest.raises(LabelFileError, match=r"image0\.png: the label cannot be read"):
            _convert(task)


def test_a_label_that_claims_a_huge_size_is_refused_undecoded(tasks: list[LabelTask]) -> None:
    Image.new("L", (9000, 9000)).save(tasks[0].source)
    with pytest.raises(LabelFileError, match=r"\(9000, 9000\)"):
        _convert(tasks[0])


def test_an_image_that_is_missing_or_damaged_is_named(tasks: list[LabelTask]) -> None:
    tasks[0].image.unlink()
    tasks[1].image.write_bytes(b"\xff\xd8 no image")
    problems = prepare_files(tasks, workers=2).problems
    assert len(problems) == 2
    assert "image0.jpg: the image is missing" in problems[0]
    assert "image1.jpg: the image cannot be read" in problems[1]


def test_problems_keep_nothing_else_from_being_written(tasks: list[LabelTask]) -> None:
    Image.new("L", (20, 30), 3).save(tasks[2].source)
    tasks[4].source.write_bytes(b"")
    report = prepare_files(tasks, workers=2)
    assert (report.written, report.skipped) == (4, 0)
    assert ["image2" in report.problems[0], "image4" in report.problems[1]] == [True, True]
    assert "[3]" in report.problems[0]
    names = sorted(path.name for path in tasks[0].target.parent.iterdir())
    assert names == ["image0.png", "image1.png", "image3.png", "image5.png"]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_second_run_writes_nothing(tasks: list[LabelTask], workers: int) -> None:
    assert prepare_files(tasks, workers) == PreparationReport(6, 0, ())
    before = {task.target: task.target.stat().st_mtime_ns for task in tasks}
    assert prepare_files(tasks, workers) == PreparationReport(0, 6, ())
    assert {task.target: task.target.stat().st_mtime_ns for task in tasks} == before


def test_a_label_that_changed_is_prepared_again(tasks: list[LabelTask]) -> None:
    prepare_files(tasks, workers=1)
    Image.new("L", (20, 30), 2).save(tasks[3].source)
    later = tasks[3].target.stat().st_mtime_ns + 10**9
    os.utime(tasks[3].source, ns=(later, later))
    assert prepare_files(tasks, workers=1).written == 1
    with Image.open(tasks[3].target) as target:
        assert set(np.unique(np.array(target))) == {1}


def test_a_run_that_was_killed_is_completed_to_the_same_files(
    tasks: list[LabelTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tasks[0].target.parent
    prepare_files(tasks, workers=1)
    uninterrupted = _contents(folder)
    for path in folder.iterdir():
        path.unlink()

    replaced: list[str] = []

    def replace_three(source: str, target: str) -> None:
        if len(replaced) == 3:
            raise KeyboardInterrupt
        replaced.append(os.path.basename(target))
        os.rename(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", replace_three)
        prepare_files(tasks, workers=1)
    assert _contents(folder).items() <= uninterrupted.items()
    # what a kill may leave as well
    (folder / f".image5.png.{OF_A_DEAD_PROCESS}").write_bytes(b"half")
    report = prepare_files(tasks, workers=1)
    assert (report.written, report.skipped) == (3, 3)
    assert _contents(folder) == uninterrupted


def test_a_write_error_ends_the_run_and_leaves_no_part(
    tasks: list[LabelTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", disk_full)
    with pytest.raises(OSError, match="No space left"):
        prepare_files(tasks, workers=2)
    assert list(tasks[0].target.parent.iterdir()) == []


def test_no_tasks_are_no_problem() -> None:
    assert prepare_files([], workers=4) == PreparationReport(0, 0, ())


def test_a_run_is_summarized(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calls = []

    def prepare(root: Path, workers: int) -> PreparationReport:
        calls.append((root, workers))
        return PreparationReport(1, 2, ())

    assert run_preparation(prepare, root=tmp_path, workers=3) == 0
    assert calls == [(tmp_path, 3)]
    assert "1 files written, 2 were finished before, 0 could not" in capsys.readouterr().out


def test_problems_are_errors(capsys: pytest.CaptureFixture[str]) -> None:
    report = PreparationReport(0, 0, ("a.png: damaged", "b.png: damaged"))
    assert run_preparation(lambda: report) == 1
    error = capsys.readouterr().err
    assert "error: a.png: damaged\nerror: b.png: damaged\n" in error


def test_empty_folders_are_not_a_success() -> None:
    with pytest.raises(ValueError, match="no label to prepare"):
        run_preparation(lambda: PreparationReport(0, 0, ()))


def test_a_problem_of_two_labels_of_an_image_is_said_once(tasks: list[LabelTask]) -> None:
    others = [replace(task, target=task.target.with_name(f"2{task.target.name}")) for task in tasks]
    tasks[1].image.unlink()
    report = prepare_files(tasks + others, workers=2)
    assert (report.written, report.skipped, len(report.problems)) == (10, 0, 1)


def test_json_files_are_finished_or_written_again(tasks: list[LabelTask]) -> None:
    tasks = [
        replace(task, target=task.target.with_suffix(".json"), convert=lambda task: b'{"a": 1}')
        for task in tasks
    ]
    assert prepare_files(tasks, workers=2).written == 6
    tasks[1].target.unlink()
    leftover = tasks[1].target.parent / f".image5.json.{OF_A_DEAD_PROCESS}"
    leftover.write_bytes(b"half")
    report = prepare_files(tasks, workers=2)
    assert (report.written, report.skipped) == (1, 5)
    assert set(_contents(tasks[1].target.parent).values()) == {b'{"a": 1}'}
    assert len(list(tasks[1].target.parent.iterdir())) == 6
