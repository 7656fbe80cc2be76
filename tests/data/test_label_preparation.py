"""Label files: the table, what is refused, atomic writing, going on after a break, command line."""

import os
import socket
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pixelclip.data.label_preparation import (
    LabelFileError,
    LabelTask,
    PreparationReport,
    convert_label,
    label_tasks,
    make_label_table,
    prepare_files,
    prepare_labels,
    run_prepare_command,
)

TABLE = make_label_table({0: 255, 1: 0, 2: 1, 255: 255})
# End of the name of what atomic_writer leaves behind when it is killed; no process has this number.
OF_A_DEAD_PROCESS = f"{socket.gethostname()}-{2**22 + 1}-{'0' * 32}.tmp"


@pytest.fixture
def tasks(tmp_path: Path) -> list[LabelTask]:
    """Six images of 20x30 pixels with labels of the values that TABLE allows."""
    names = [f"image{index}" for index in range(6)]
    tasks = label_tasks(names, tmp_path / "images", tmp_path / "raw", tmp_path / "out" / "val")
    (tmp_path / "images").mkdir()
    (tmp_path / "raw").mkdir()
    for seed, task in enumerate(tasks):
        Image.new("RGB", (20, 30)).save(task.image)
        label = np.random.default_rng(seed).choice([0, 1, 2, 255], (30, 20)).astype(np.uint8)
        Image.fromarray(label).save(task.source)
    return tasks


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@given(st.dictionaries(st.integers(0, 255), st.integers(0, 255), min_size=1))
def test_the_table_holds_the_mapping_and_refuses_the_rest(train_ids: dict[int, int]) -> None:
    table = make_label_table(train_ids)
    assert table.shape == (256,)
    assert {value: int(table[value]) for value in train_ids} == train_ids
    assert set(np.flatnonzero(table < 0)) == set(range(256)) - set(train_ids)


def test_every_pixel_goes_through_the_table(tasks: list[LabelTask]) -> None:
    prepare_labels(tasks, TABLE, workers=1)
    for task in tasks:
        with Image.open(task.source) as source, Image.open(task.target) as target:
            assert target.mode == "L"
            assert np.array_equal(np.array(target), TABLE[np.array(source)])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16", "1", "LA"])
def test_other_pixel_formats_are_refused(tasks: list[LabelTask], mode: str) -> None:
    Image.new(mode, (20, 30)).save(tasks[0].source)
    with pytest.raises(LabelFileError, match=f"image0.png: .*palette image, got mode {mode[0]}"):
        convert_label(tasks[0], TABLE)


@pytest.mark.parametrize("size", [(30, 20), (20, 31), (1, 1)])
def test_another_size_than_the_image_is_refused(
    tasks: list[LabelTask], size: tuple[int, int]
) -> None:
    Image.new("L", size).save(tasks[0].source)
    with pytest.raises(LabelFileError, match=r"image0\.png: its size is .*\(20, 30\)"):
        convert_label(tasks[0], TABLE)


def test_the_size_of_an_image_is_the_one_that_it_is_shown_in(tasks: list[LabelTask]) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tasks[0].image, exif=turned)
    with Image.open(BytesIO(convert_label(tasks[0], TABLE))) as label:
        assert label.size == (20, 30)


def test_a_broken_label_is_refused_wherever_it_is_broken(tasks: list[LabelTask]) -> None:
    task = tasks[0]
    whole = task.source.read_bytes()
    damaged = [whole[:length] for length in range(0, len(whole) - 12, 7)]
    for place in range(0, len(whole) - 12, 7):
        damaged.append(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
    for content in [*damaged, b"\0" * 1000, b"<html>not found</html>"]:
        task.source.write_bytes(content)
        with pytest.raises(LabelFileError, match=r"image0\.png: the label cannot be read"):
            convert_label(task, TABLE)


def test_a_label_that_claims_a_huge_size_is_refused_undecoded(tasks: list[LabelTask]) -> None:
    Image.new("L", (9000, 9000)).save(tasks[0].source)
    with pytest.raises(LabelFileError, match=r"\(9000, 9000\)"):
        convert_label(tasks[0], TABLE)


def test_an_image_that_is_missing_or_broken_is_named(tasks: list[LabelTask]) -> None:
    tasks[0].image.unlink()
    tasks[1].image.write_bytes(b"\xff\xd8 no image")
    problems = prepare_labels(tasks, TABLE, workers=2).problems
    assert len(problems) == 2
    assert "image0.jpg: the image is missing" in problems[0]
    assert "image1.jpg: the image cannot be read" in problems[1]


def test_problems_keep_nothing_else_from_being_written(tasks: list[LabelTask]) -> None:
    Image.new("L", (20, 30), 3).save(tasks[2].source)
    tasks[4].source.write_bytes(b"")
    report = prepare_labels(tasks, TABLE, workers=2)
    assert (report.written, report.skipped) == (4, 0)
    assert ["image2" in report.problems[0], "image4" in report.problems[1]] == [True, True]
    assert "[3]" in report.problems[0]
    names = sorted(path.name for path in tasks[0].target.parent.iterdir())
    assert names == ["image0.png", "image1.png", "image3.png", "image5.png"]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_second_run_writes_nothing(tasks: list[LabelTask], workers: int) -> None:
    assert prepare_labels(tasks, TABLE, workers) == PreparationReport(6, 0, ())
    before = {task.target: task.target.stat().st_mtime_ns for task in tasks}
    assert prepare_labels(tasks, TABLE, workers) == PreparationReport(0, 6, ())
    assert {task.target: task.target.stat().st_mtime_ns for task in tasks} == before


def test_a_label_that_changed_is_prepared_again(tasks: list[LabelTask]) -> None:
    prepare_labels(tasks, TABLE, workers=1)
    Image.new("L", (20, 30), 2).save(tasks[3].source)
    later = tasks[3].target.stat().st_mtime_ns + 10**9
    os.utime(tasks[3].source, ns=(later, later))
    assert prepare_labels(tasks, TABLE, workers=1).written == 1
    with Image.open(tasks[3].target) as target:
        assert set(np.unique(np.array(target))) == {1}


def test_a_run_that_was_killed_is_completed_to_the_same_files(
    tasks: list[LabelTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tasks[0].target.parent
    prepare_labels(tasks, TABLE, workers=1)
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
        prepare_labels(tasks, TABLE, workers=1)
    assert _contents(folder).items() <= uninterrupted.items()
    # what a kill or a power cut may leave besides: a temporary file, a file that was cut short
    (folder / f".image5.png.{OF_A_DEAD_PROCESS}").write_bytes(b"half")
    (folder / replaced[0]).write_bytes(uninterrupted[replaced[0]][:-20])
    report = prepare_labels(tasks, TABLE, workers=1)
    assert (report.written, report.skipped) == (4, 2)
    assert _contents(folder) == uninterrupted


def test_a_write_error_ends_the_run_and_leaves_no_part(
    tasks: list[LabelTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", disk_full)
    with pytest.raises(OSError, match="No space left"):
        prepare_labels(tasks, TABLE, workers=2)
    assert list(tasks[0].target.parent.iterdir()) == []


def test_no_tasks_are_no_problem() -> None:
    assert prepare_labels([], TABLE, workers=4) == PreparationReport(0, 0, ())


def test_the_command_line_passes_root_and_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def prepare(root: Path, workers: int) -> PreparationReport:
        calls.append((root, workers))
        return PreparationReport(1, 2, ())

    assert run_prepare_command("", prepare, ["--root", str(tmp_path), "--workers", "3"]) == 0
    monkeypatch.setenv("DETECTRON2_DATASETS", "/elsewhere")
    assert run_prepare_command("", prepare, []) == 0
    assert calls[0] == (tmp_path, 3)
    assert calls[1][0] == Path("/elsewhere")
    assert "1 labels written, 2 were finished before, 0 could not" in capsys.readouterr().out


def test_the_command_line_reports_problems_and_refusals(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(root: Path, workers: int) -> PreparationReport:
        raise FileNotFoundError("nothing here")

    report = PreparationReport(0, 0, ("a.png: broken", "b.png: broken"))
    assert run_prepare_command("", lambda **_: report, []) == 1
    assert run_prepare_command("", refuse, []) == 1
    error = capsys.readouterr().err
    for line in ("error: a.png: broken", "error: b.png: broken", "error: nothing here"):
        assert line in error


def test_the_command_line_passes_one_of_the_splits(capsys: pytest.CaptureFixture[str]) -> None:
    splits = []

    def prepare(root: Path, workers: int, split: str) -> PreparationReport:
        splits.append(split)
        return PreparationReport(1, 0, ())

    for arguments in ([], ["--split", "val"]):
        assert run_prepare_command("", prepare, arguments, splits=("train", "val")) == 0
    assert splits == ["train", "val"]
    with pytest.raises(SystemExit):
        run_prepare_command("", prepare, ["--split", "test"], splits=("train", "val"))
    assert "'train', 'val'" in capsys.readouterr().err.replace("train, val", "'train', 'val'")


def test_empty_folders_are_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_prepare_command("", lambda **_: PreparationReport(0, 0, ()), []) == 1
    assert "no label to prepare" in capsys.readouterr().err


def test_reports_of_the_same_labels_add_up() -> None:
    first = PreparationReport(1, 2, ("a.png: broken", "b.png: broken"))
    second = PreparationReport(3, 4, ("b.png: broken", "c.png: broken"))
    problems = ("a.png: broken", "b.png: broken", "c.png: broken")
    assert first + second == PreparationReport(4, 6, problems)


def test_json_files_are_finished_or_made_anew(tasks: list[LabelTask]) -> None:
    tasks = [replace(task, target=task.target.with_suffix(".json")) for task in tasks]
    assert prepare_files(tasks, lambda task: b'{"a": 1}', workers=2).written == 6
    tasks[1].target.write_bytes(b'{"a": ')
    leftover = tasks[1].target.parent / f".image5.json.{OF_A_DEAD_PROCESS}"
    leftover.write_bytes(b"half")
    report = prepare_files(tasks, lambda task: b'{"a": 1}', workers=2)
    assert (report.written, report.skipped) == (1, 5)
    assert set(_contents(tasks[1].target.parent).values()) == {b'{"a": 1}'}
    assert len(list(tasks[1].target.parent.iterdir())) == 6


@pytest.mark.parametrize("workers", ["0", "-1", "two"])
def test_a_number_of_workers_that_makes_no_sense_is_refused(workers: str) -> None:
    with pytest.raises(SystemExit):
        run_prepare_command("", lambda **_: PreparationReport(0, 0, ()), ["--workers", workers])
