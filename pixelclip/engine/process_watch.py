"""Processes that train together watch each other, so that none waits for ever for one that is gone.

Each process tells the others, through torch.distributed's store, that it is alive, where it is and
whether it has failed. A thread does this, also while the process waits inside a collective. Where
one died, failed or is too slow, the others end with an error that names it.
"""

import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple

import torch.distributed
from detectron2.utils import comm

logger = logging.getLogger(__name__)

# In the order of a step. The last one holds evaluations, which may take any time.
STAGES = ("loading data", "computing", "between steps")
_POLLING_SECONDS = 0.1
_COMMUNICATION = re.compile(r"gloo|nccl|connection|broken pipe|timed out|socket|TCPStore", re.I)


class ProcessState(NamedTuple):
    """What a process tells the others.

    Attributes:
        beat: counts how often it has done so.
        iteration: that it is in, from 1.
        stage: one of ``STAGES``.
        failure: its error; "" for none.
    """

    beat: int
    iteration: int
    stage: str
    failure: str = ""

    @property
    def place(self) -> tuple[int, int]:
        """Larger is later."""
        return self.iteration, STAGES.index(self.stage)


class ProcessWatch:
    """A context around the training of one of several processes; nothing for a single one.

    An error of this process is told to the others. An error inside a collective becomes one that
    names the process that it comes from. Without an error, but with a step that takes longer than
    the limit in this process or with another process that is silent for so long, this process ends
    (at once, with status 1: a collective cannot be broken off).

    Args:
        where: iteration (from 1) and stage of this process.
        time_limit: in seconds.

    Raises:
        RuntimeError: the error of another process, which it names.
    """

    def __init__(self, where: Callable[[], tuple[int, str]], time_limit: float) -> None:
        self._where = where
        self._time_limit = time_limit
        self._interval = min(10.0, time_limit / 10)
        self._is_needed = comm.get_world_size() > 1
        self._rank, self._number = comm.get_rank(), comm.get_world_size()
        self._beat = 0
        self._stop, self._done = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="process watch", daemon=True)
        self._guard = threading.Thread(target=self._guard_store, name="store guard", daemon=True)
        self._answered = 0.0  # when the store did last
        self._changed: dict[int, tuple[ProcessState, float]] = {}  # when seen first

    def __enter__(self) -> "ProcessWatch":
        if self._is_needed:
            store = torch.distributed.distributed_c10d._get_default_store()
            # A connection of its own: another thread's waiting would hold up this one's.
            self._store: Any = store.clone() if hasattr(store, "clone") else store
            self._tell()
            comm.synchronize()  # from here on everybody's state is there
            self._thread.start()
            self._guard.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._is_needed:
            return
        try:
            if error is None:
                comm.synchronize()  # the one that holds the store must not leave early
            self._stop.set()
            self._thread.join(3 * self._interval)
            if isinstance(error, Exception):
                self._blame(error)
        finally:
            self._stop.set()
            self._done.set()
            # A thread that is still there when Python ends may abort the process.
            self._guard.join()
            self._thread.join(3 * self._interval)
            del self._store

    def _blame(self, error: Exception) -> None:
        """Tell the others of an own error; raise where the error comes from another process."""
        # Without a collective, "connection timed out" is a disk's.
        if self._where()[1] == STAGES[0] or not is_of_communication(error):
            with suppress(RuntimeError):
                self._tell(failure=f"{type(error).__name__}: {error}")
            if self._rank == 0 and "TORCHELASTIC_RUN_ID" not in os.environ:
                self._let_others_read()
            return
        others = self._find_failed()
        raise RuntimeError(
            f"Rank {self._rank} lost the other processes in iteration {self._where()[0]}: "
            f"{others or 'no other process says why, perhaps the network failed'}. Start again "
            "with --resume; the training goes on from its last checkpoint."
        ) from error

    def _let_others_read(self) -> None:
        """The store ends with this process: the others are to read it before.

        Those that have failed themselves, as all do of a bad loss, need not.
        """
        end = time.monotonic() + 5 * self._interval
        with suppress(RuntimeError):
            while time.monotonic() < end:
                states = self._read()
                if all(states[rank].failure for rank in range(1, self._number)):
                    return
                time.sleep(_POLLING_SECONDS)

    def _find_failed(self) -> str:
        """Who has failed or fallen silent, after waiting for a few signs of life."""
        try:
            before = self._read()
            for _ in range(3):
                time.sleep(self._interval)
                with suppress(RuntimeError):
                    self._tell()  # the others look for us as we look for them
                states = self._read()
                failed = [_describe(rank, state) for rank, state in states.items() if state.failure]
                if failed:
                    return "; ".join(failed)
        except RuntimeError:
            return "rank 0, or torchrun's agent, which all processes ask for the others, is gone"
        silent = [rank for rank, state in states.items() if state.beat == before[rank].beat]
        return "; ".join(_describe(r, states[r], "died") for r in silent if r != self._rank)

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                self._tell()
                reason = self._reason_to_give_up(self._read())
            except RuntimeError as error:  # of the store
                reason = self._reason_without_store(error)
            if reason:
                self._give_up(reason)

    def _reason_without_store(self, error: RuntimeError) -> str:
        since = self._since(-1, ProcessState(0, 0, "no answer"))  # -1: no rank, the store
        if time.monotonic() - since < 3 * self._interval:
            return ""
        return f"rank 0, or torchrun's agent, does not answer ({str(error).splitlines()[0]})"

    def _guard_store(self) -> None:
        """Asking a store whose process is frozen waits for ever; this thread does not ask it."""
        while not self._done.wait(self._interval):
            if time.monotonic() - self._answered > self._time_limit + self._interval:
                self._give_up("rank 0, or torchrun's agent, does not answer any more")

    def _tell(self, failure: str = "") -> None:
        self._beat += 1
        state = ProcessState(self._beat, *self._where(), failure)
        self._store.set(_key(self._rank), json.dumps(state))
        self._answered = time.monotonic()

    def _read(self) -> dict[int, ProcessState]:
        ranks = range(self._number)
        texts = {rank: self._store.get(_key(rank)) for rank in ranks}
        self._answered = time.monotonic()
        return {rank: ProcessState(*json.loads(text)) for rank, text in texts.items()}

    def _since(self, rank: int, state: ProcessState) -> float:
        """When this process first saw a state of a process; clocks differ between machines."""
        if rank not in self._changed or self._changed[rank][0] != state:
            self._changed[rank] = state, time.monotonic()
        return self._changed[rank][1]

    def _reason_to_give_up(self, states: dict[int, ProcessState]) -> str:
        """Why waiting makes no sense any more; "" while it does."""
        now = time.monotonic()
        self._changed.pop(-1, None)
        for rank, state in states.items():
            waited = now - self._since(rank, state)
            if rank == self._rank:
                continue
            if state.failure and waited > 2 * self._interval:
                return _describe(rank, state)
            if waited > self._time_limit:
                return _describe(rank, state, "died or hangs, the last that was heard of it was")
        own = states[self._rank]._replace(beat=0)
        in_a_step = own.stage in STAGES[:2]
        if in_a_step and now - self._since(self._number, own) > self._time_limit:
            return self._describe_slowest(states)
        if not in_a_step:
            self._changed.pop(self._number, None)
        return ""

    def _describe_slowest(self, states: dict[int, ProcessState]) -> str:
        first = min(state.place for state in states.values())
        slowest = [rank for rank, state in states.items() if state.place == first]
        who = "all processes are" if len(slowest) == self._number else "the slowest is"
        return f"{who} " + "; ".join(_describe(rank, states[rank], "still") for rank in slowest)

    def _give_up(self, reason: str) -> None:
        message = (
            f"Rank {self._rank} gives up (SOLVER.STEP_TIME_LIMIT is {self._time_limit:g} s): "
            f"{reason}. Start again with --resume; the training goes on from its last checkpoint."
        )
        logger.critical(message)
        print(message, file=sys.stderr, flush=True)
        logging.shutdown()
        os._exit(1)


def is_of_communication(error: BaseException) -> bool:
    """Whether an error was raised because another process could not be reached."""
    known = getattr(torch.distributed, "DistError", ())
    return isinstance(error, known) or (
        type(error) is RuntimeError and bool(_COMMUNICATION.search(str(error)))
    )


def _describe(rank: int, state: ProcessState, what: str = "failed") -> str:
    failure = f" with {state.failure}" if state.failure else ""
    return f"rank {rank} {what} in iteration {state.iteration}, {state.stage}{failure}"


def _key(rank: int) -> str:
    return f"pixelclip/process_watch/{rank}"
