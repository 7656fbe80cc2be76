"""Run checks, each in a process of its own, and report what passed, failed or was skipped.

Out of memory, a crash or a deadlock then costs one check, and a check's peak memory is its own.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate
from tqdm import tqdm

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
# A fork starts in a moment, with everything imported. It is safe before threads and CUDA start.
CONTEXT: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
_MAX_REASON = 240
_OUT_OF_TIME = "the time was over; --minutes gives more"


class Line(NamedTuple):
    """One line of a report.

    Attributes:
        status: ``PASSED``, ``FAILED`` or ``SKIPPED``.
        what: was checked.
        result: in one line; of a failed or skipped check, the reason.
        values: more of it, which JSON can hold.
        check: title of the check that it belongs to.
    """

    status: str
    what: str
    result: str
    values: Mapping[str, Any] = {}
    check: str = ""


class Check(NamedTuple):
    """Something to run, which yields lines as it gets them.

    Attributes:
        title: of the check.
        run: makes its lines, in a process of its own, out of a setting and all lines before.
        seconds: after which it is taken for hanging and killed.
    """

    title: str
    run: Callable[[Any, Sequence[Line]], Iterator[Line]]
    seconds: float = 240.0


class Verdict(NamedTuple):
    """Whether something is as it should be, in one line, and values that JSON can hold."""

    is_good: bool
    result: str
    values: Mapping[str, Any] = {}


def attempt(what: str, test: Callable[..., Verdict], *arguments: Any) -> Line:
    """The line of a test; of one that raises an error, a failed line that names it."""
    try:
        verdict = test(*arguments)
    except Exception as error:
        traceback.print_exc()
        return Line(FAILED, what, describe_error(error))
    return Line(PASSED if verdict.is_good else FAILED, what, verdict.result, verdict.values)


def skipped(what: str, reason: str) -> Line:
    """The line of something that cannot be checked here."""
    return Line(SKIPPED, what, reason)


def describe_error(error: BaseException) -> str:
    """The type and the first line of an error's text, shortened."""
    lines = str(error).strip().splitlines() or ["no text"]
    text = f"{type(error).__name__}: {lines[0]}"
    return text if len(text) <= _MAX_REASON else text[: _MAX_REASON - 3] + "..."


def run_checks(checks: Sequence[Check], setting: Any, seconds: float, log: Path) -> Iterator[Line]:
    """Run checks one after the other and yield their lines as they come.

    Args:
        checks: an error, a crash or a deadlock in one is a failed line.
        setting: what all of them get.
        seconds: for all together; what does not fit in is skipped.
        log: file to which goes what the checks print, with the tracebacks of their errors.
    """
    end = time.monotonic() + seconds
    lines: list[Line] = []
    bar = tqdm(checks, "Checking", unit="check", leave=False, disable=None)
    for check in bar:
        bar.set_postfix_str(check.title)
        for line in _run_isolated(check, setting, lines, end, log):
            lines.append(line._replace(check=check.title))
            yield lines[-1]


def _run_isolated(
    check: Check, setting: Any, lines: Sequence[Line], end: float, log: Path
) -> Iterator[Line]:
    left = end - time.monotonic()
    if left <= 0:
        yield skipped("all of it", _OUT_OF_TIME)
        return
    receiver, sender = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_work, args=(check, setting, lines, sender, log))
    process.start()
    sender.close()
    try:
        yield from _receive(receiver, process, time.monotonic() + min(check.seconds, left))
    except TimeoutError:
        is_hanging = check.seconds < left
        reason = f"not done in {check.seconds:.0f} s" if is_hanging else _OUT_OF_TIME
        yield Line(FAILED if is_hanging else SKIPPED, "the rest", reason)
    except EOFError:
        yield Line(FAILED, "the rest", _describe_end(process))
    finally:
        _kill_group(process)


def _receive(receiver: Connection, process: Any, deadline: float) -> Iterator[Line]:
    """The lines of a process until it sends None.

    Raises:
        EOFError: it has ended before.
        TimeoutError: it has not until the deadline.
    """
    while True:
        # The end of the pipe alone would not tell: what the check has started holds it too.
        is_alive = process.is_alive()
        if receiver.poll(0.2 if is_alive else 0):
            line = receiver.recv()
            if line is None:
                return
            yield line
        elif not is_alive:
            raise EOFError
        elif time.monotonic() > deadline:
            raise TimeoutError


def _describe_end(process: Any) -> str:
    process.join(5)
    code = process.exitcode
    if code is not None and code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _kill_group(process: Any) -> None:
    """End a check's process with all that it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join(10)  # a process that waits for a broken driver cannot be killed


def _work(check: Check, setting: Any, lines: Sequence[Line], sender: Connection, log: Path) -> None:
    """The process of a check: send its lines, then None."""
    os.setsid()
    # The loading processes of a training are forked, as in any training.
    multiprocessing.set_start_method("fork" if sys.platform == "linux" else "spawn", force=True)
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = sys.stderr = os.fdopen(2, "w", 1, closefd=False)
    logging.disable(logging.INFO)
    print(f"\n{check.title}")
    try:
        for line in check.run(setting, lines):
            sender.send(line)
    except Exception as error:
        traceback.print_exc()
        sender.send(Line(FAILED, "all of it", describe_error(error)))
    sender.send(None)


def format_lines(lines: Sequence[Line]) -> str:
    """A section with a table in Markdown for each check."""
    titles = dict.fromkeys(line.check for line in lines)
    parts = []
    for title in titles:
        rows = [
            (line.status if line.status == PASSED else f"**{line.status}**", line.what, line.result)
            for line in lines
            if line.check == title
        ]
        escaped = [[cell.replace("|", r"\|") for cell in row] for row in rows]
        parts.append(f"## {title}\n\n" + tabulate(escaped, ["", "what", "result"], "github"))
    return "\n\n".join(parts)


def count_lines(lines: Sequence[Line]) -> str:
    """How many lines passed, failed and were skipped, in words."""
    counts = Counter(line.status for line in lines)
    return ", ".join(f"{counts[status]} {status}" for status in (PASSED, FAILED, SKIPPED))
