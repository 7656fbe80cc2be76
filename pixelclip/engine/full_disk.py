"""Where a disk is full, or its folder cannot be written for a while, training goes on.

What could not be written is said at once and written later: a checkpoint at the next occasion, the
last one after waiting for room.
"""

import contextlib
import functools
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.engine.hooks import PeriodicCheckpointer
from detectron2.utils.events import EventWriter
from fvcore.common.checkpoint import Checkpointer

from pixelclip.evaluation.benchmark import ResultNotStoredError

logger = logging.getLogger(__name__)


class PatientCheckpointer(PeriodicCheckpointer):
    """Detectron2's hook that saves checkpoints, which outlives those that cannot be written.

    The latest whole checkpoint stays what a resumed training begins with. A missed one is made up
    for every ``RETRY_PERIOD`` iterations; for the final one the process waits, and the error is
    raised only after ``FINAL_ATTEMPTS`` of them, ``FINAL_PAUSE`` seconds apart.
    """

    RETRY_PERIOD = 100
    FINAL_ATTEMPTS = 20
    FINAL_PAUSE = 60.0

    def __init__(self, checkpointer: Checkpointer, period: int, num_kept: int = 0) -> None:
        """Args:
        checkpointer: saves.
        period: in iterations.
        num_kept: how many checkpoints stay beside the final one, the latest ones; 0 for all.
        """
        super().__init__(checkpointer, period)
        self._num_kept = num_kept
        self._missed = False

    def step(self, iteration: int, **kwargs: Any) -> None:
        """Save where it is time to, or where a checkpoint was missed before."""
        is_last = self.max_iter is not None and iteration >= self.max_iter - 1
        attempts = self.FINAL_ATTEMPTS if is_last else 1
        for attempt in range(1, attempts + 1):
            try:
                super().step(iteration, **kwargs)
                self._make_up(iteration)
                self._remove_old()
                return
            except OSError as error:
                self._missed = True
                if is_last and attempt == attempts:
                    raise
                self._report(error, is_last)
                if is_last:
                    time.sleep(self.FINAL_PAUSE)

    def _make_up(self, iteration: int) -> None:
        is_due = (iteration + 1) % self.period == 0  # then it has just been saved
        if self._missed and not is_due and (iteration + 1) % self.RETRY_PERIOD == 0:
            self.checkpointer.save(f"{self.file_prefix}_{iteration:07d}", iteration=iteration)
            is_due = True
        self._missed = self._missed and not is_due

    def _remove_old(self) -> None:
        """Also those of earlier runs in the same folder, whose iterations may be higher."""
        if not self._num_kept or not self.checkpointer.has_checkpoint():
            return
        names = re.compile(rf"{re.escape(self.file_prefix)}_\d{{7,}}\.pth")
        folder = Path(self.checkpointer.save_dir)
        found = [path for path in folder.iterdir() if names.fullmatch(path.name)]
        found.sort(key=lambda path: (path.stat().st_mtime_ns, path.name))
        latest = Path(self.checkpointer.get_checkpoint_file())
        for path in found[: -self._num_kept]:
            if path.name != latest.name:
                path.unlink()

    def _report(self, error: OSError, is_last: bool) -> None:
        if is_last:
            what = f"It is tried again in {self.FINAL_PAUSE:g} seconds: make room."
        else:
            what = f"Training goes on; it is tried again within {self.RETRY_PERIOD} iterations."
        logger.error("The checkpoint could not be saved: %s. %s", error, what)


class PatientWriter(EventWriter):
    """A writer of Detectron2 whose errors end in the log, not in the end of the training.

    Args:
        writer: writes what the event storage holds.
        reopen: makes the writer anew after an error; None where it can go on by itself.
    """

    def __init__(
        self, writer: EventWriter, reopen: Callable[[], EventWriter] | None = None
    ) -> None:
        self._writer: EventWriter | None = writer
        self._reopen = reopen
        self._has_failed = False

    def write(self) -> None:
        """Write, or say once that it does not work."""
        try:
            if self._writer is None and self._reopen is not None:
                self._writer = self._reopen()
            if self._writer is not None:
                self._writer.write()
            self._has_failed = False
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """Close the writer."""
        try:
            if self._writer is not None:
                self._writer.close()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        if not self._has_failed:
            name = type(self._writer).__name__
            logger.error("%s cannot write, training goes on without it: %s", name, error)
        self._has_failed = True
        if self._reopen is not None:
            with contextlib.suppress(OSError):
                if self._writer is not None:
                    self._writer.close()
            self._writer = None


def without_stored_result(evaluate: Callable[[], Any]) -> Callable[[], Any]:
    """An evaluation during training: where its results cannot be stored, they are in the log."""

    @functools.wraps(evaluate)
    def evaluate_and_go_on() -> Any:
        try:
            return evaluate()
        except ResultNotStoredError as error:
            logger.error("Training goes on without stored results: %s", error)
            return None

    return evaluate_and_go_on
