"""Training continues where a disk is full or its folder cannot be written for a while.

What could not be written is logged at once and written later: a checkpoint at the next occasion,
the last one after waiting for room.
"""

import contextlib
import functools
import logging
import time
from collections.abc import Callable
from typing import Any

from detectron2.engine.hooks import PeriodicCheckpointer
from detectron2.utils.events import EventWriter

from pixelclip.evaluation.benchmark import ResultNotStoredError

logger = logging.getLogger(__name__)


class RetryingCheckpointer(PeriodicCheckpointer):
    """Detectron2's hook that saves checkpoints, which survives those that cannot be written.

    A missed checkpoint is saved at the next iteration that ``RETRY_PERIOD`` divides; for the final
    one the process waits, and raises after ``FINAL_ATTEMPTS``, ``FINAL_PAUSE`` seconds apart.
    """

    RETRY_PERIOD = 100
    FINAL_ATTEMPTS = 20
    FINAL_PAUSE = 60.0

    period: int
    recent_checkpoints: list[str]
    _missed = False

    def step(self, iteration: int, **kwargs: Any) -> None:
        """Save where it is time to, or where a checkpoint was missed before."""
        is_last = self.max_iter is not None and iteration >= self.max_iter - 1
        is_due = (iteration + 1) % self.period == 0
        is_due |= self._missed and (iteration + 1) % self.RETRY_PERIOD == 0
        period, recent = self.period, self.recent_checkpoints
        for attempts_left in reversed(range(self.FINAL_ATTEMPTS if is_last else 1)):
            # Each attempt saves what is due again, and must count it only once among those to keep.
            self.recent_checkpoints = [*recent]
            try:
                self.period = 1 if is_due else period
                super().step(iteration, **kwargs)
                self._missed = self._missed and not is_due
                return
            except OSError as error:
                self._missed = True
                if is_last and not attempts_left:
                    raise
                todo = f"Training continues; it is retried within {self.RETRY_PERIOD} iterations."
                if is_last:
                    todo = f"It is retried in {self.FINAL_PAUSE:g} seconds: free some space."
                logger.error("The checkpoint could not be saved: %s. %s", error, todo)
                time.sleep(self.FINAL_PAUSE if is_last else 0)
            finally:
                self.period = period


class RetryingWriter(EventWriter):
    """A writer of Detectron2 whose errors are logged instead of ending the training.

    Args:
        writer: writes what the event storage holds.
        reopen: makes a new writer after an error; None where the old one can continue.
    """

    def __init__(
        self, writer: EventWriter, reopen: Callable[[], EventWriter] | None = None
    ) -> None:
        self._writer: EventWriter | None = writer
        self._reopen = reopen
        self._has_failed = False

    def write(self) -> None:
        """Write; log the first of several errors in a row."""
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
            logger.error("%s cannot write, training continues without it: %s", name, error)
        self._has_failed = True
        if self._reopen is not None:
            with contextlib.suppress(OSError):
                if self._writer is not None:
                    self._writer.close()
            self._writer = None


def log_unstored_result(evaluate: Callable[[], Any]) -> Callable[[], Any]:
    """An evaluation during training whose results, where they cannot be stored, are logged."""

    @functools.wraps(evaluate)
    def evaluate_and_continue() -> Any:
        try:
            return evaluate()
        except ResultNotStoredError as error:
            logger.error("Training continues without stored results: %s", error)
            return None

    return evaluate_and_continue
