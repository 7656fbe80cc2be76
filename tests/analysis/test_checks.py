"""Checks fail, crash and hang, each on its own."""

import os
import signal
import subprocess
import time

import pytest

from pixelclip.analysis.checks import (
    FAILED,
    PASSED,
    SKIPPED,
    Check,
    Line,
    Verdict,
    attempt,
    count_lines,
    format_lines,
    run_checks,
    skipped,
)


def speak(setting, lines):
    print("a word for the log")
    yield Line(PASSED, "setting", str(setting))
    yield Line(PASSED, "lines before", str(len(lines)), {"number": len(lines)})


def fail(setting, lines):
    yield Line(PASSED, "first", "done")
    raise RuntimeError("out of memory\nwith a second line")


def crash(setting, lines):
    yield Line(PASSED, "first", "done")
    os.kill(os.getpid(), signal.SIGKILL)


def leave(setting, lines):
    yield Line(PASSED, "first", "done")
    os._exit(3)


def hang(setting, lines):
    child = subprocess.Popen(["sleep", "600"])
    yield Line(PASSED, "child", str(child.pid))
    time.sleep(600)


def run(checks, tmp_path, seconds=60.0):
    return list(run_checks(checks, 5, seconds, tmp_path / "log.txt"))


def test_lines_come_in_order_with_the_title_of_their_check(tmp_path):
    lines = run([Check("one", speak), Check("two", speak)], tmp_path)
    assert [line.check for line in lines] == ["one", "one", "two", "two"]
    assert [line.result for line in lines] == ["5", "0", "5", "2"]
    assert lines[3].values == {"number": 2}
    assert (
        tmp_path / "log.txt"
    ).read_text() == "\none\na word for the log\n\ntwo\na word for the log\n"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (fail, "RuntimeError: out of memory"),
        (crash, "ended by SIGKILL"),
        (leave, "ended with exit code 3"),
    ],
)
def test_one_that_breaks_is_a_failed_line_and_the_others_run(tmp_path, broken, reason):
    lines = run([Check("broken", broken), Check("whole", speak)], tmp_path)
    assert [line.status for line in lines] == [PASSED, FAILED, PASSED, PASSED]
    assert lines[1].result == reason
    assert ("with a second line" in (tmp_path / "log.txt").read_text()) == (broken is fail)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split()[2] != "Z"
    except OSError:
        return False


def test_one_that_hangs_is_ended_with_all_that_it_started(tmp_path):
    child, hanging, *rest = run([Check("hangs", hang, 0.5), Check("whole", speak)], tmp_path)
    assert (hanging.status, hanging.result) == (FAILED, "not done in 0 s")
    assert [line.status for line in rest] == [PASSED, PASSED]
    deadline = time.monotonic() + 30
    while is_running(int(child.result)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(int(child.result))


def test_what_does_not_fit_into_the_time_is_skipped(tmp_path):
    lines = run([Check("long", hang), Check("late", speak)], tmp_path, seconds=0.5)
    assert [line.status for line in lines] == [PASSED, SKIPPED, SKIPPED]
    assert "--minutes" in lines[1].result and "--minutes" in lines[2].result


def test_a_test_passes_fails_or_raises():
    assert attempt("x", Verdict, True, "good", {"n": 1}) == Line(PASSED, "x", "good", {"n": 1})
    assert attempt("x", Verdict, False, "bad") == Line(FAILED, "x", "bad", {})
    assert attempt("x", [].__getitem__, 3).result == "IndexError: list index out of range"


def test_the_tables_have_every_line():
    lines = [
        Line(PASSED, "a | b", "one", check="First"),
        skipped("c", "needs a GPU")._replace(check="Second"),
    ]
    text = format_lines(lines)
    assert text.startswith("## First\n\n|") and "\n\n## Second\n\n|" in text
    assert r"a \| b" in text and "**skipped**" in text and "**passed**" not in text
    assert count_lines(lines) == "1 passed, 0 failed, 1 skipped"
