"""Ctrl-C and SIGTERM during a training: finish the step, write a checkpoint, stop."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm

from pixelclip.engine.training_step import TrainingStep
from pixelclip.utils.distributed import run_on_all_ranks

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_NOTICE = (
    b"\nStopping: a checkpoint is written after the current iteration. "
    b"Press Ctrl-C again to stop at once, without it.\n"
)


class TrainingInterrupted(KeyboardInterrupt):  # noqa: N818 (a KeyboardInterrupt is not an error)
    """A training was stopped by a signal, after its checkpoint was written."""


class StopOnSignal(HookBase):
    """Let SIGINT (Ctrl-C) and SIGTERM stop the training after a checkpoint.

    The processes agree in the gathering of the losses, so that all of them stop after the same
    iteration, whichever received the signal. A second Ctrl-C stops at once. The last iteration is
    not interrupted: it ends the training anyway.

    Args:
        step: of the same training; it tells the processes' wishes to each other.
    """

    # One key press may come twice: from the terminal, and from a launcher that passes it on.
    SECONDS_OF_ONE_SIGNAL = 1.0

    def __init__(self, step: TrainingStep) -> None:
        self._step = step
        self._received_at = 0.0
        self._before: dict[int, Any] = {}

    def before_train(self) -> None:
        """Take the signals over; Python allows it in the main thread only."""
        self._step.is_asked_to_stop = False
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in _SIGNALS}

    def after_train(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self._step.is_asked_to_stop:
            self._step.is_asked_to_stop = True
            self._received_at = now
            if comm.is_main_process():
                os.write(2, _NOTICE)  # print and logging may be what the signal has interrupted
        elif number == signal.SIGINT and now - self._received_at > self.SECONDS_OF_ONE_SIGNAL:
            raise KeyboardInterrupt

    def after_step(self) -> None:
        """Save and stop where a process was asked to; it stands before the periodic checkpoints.

        Raises:
            TrainingInterrupted: in every process, after the checkpoint was written.
            OSError: it could not be written; in the other processes RuntimeError.
        """
        done = self.trainer.iter + 1
        if not self._step.must_stop or done >= self.trainer.max_iter:
            return
        run_on_all_ranks(self._save)
        raise TrainingInterrupted(f"Interrupted after iteration {done}.")

    def _save(self) -> None:
        if comm.is_main_process():
            iteration = self.trainer.iter
            # Named as Detectron2's periodic checkpoints.
            self.trainer.checkpointer.save(f"model_{iteration:07d}", iteration=iteration)


@contextlib.contextmanager
def signals_for_children() -> Iterator[None]:
    """Pass SIGINT and SIGTERM on to the child processes, and wait for their end.

    Raises:
        KeyboardInterrupt: at the end, where a signal came. (Children started by torch end with the
            exit code 0 then.)
    """
    received = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        for child in multiprocessing.active_children():
            if child.pid is not None:
                os.kill(child.pid, number)

    before = {number: signal.signal(number, pass_on) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        raise KeyboardInterrupt
