"""Time the parts of a computation from outside, by wrapping the functions that they are made of."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch


class Stage(NamedTuple):
    """A function, as an attribute of what it is looked up in, and the name of its part."""

    owner: Any
    attribute: str
    name: str


class StageClock:
    """Seconds of each stage; of nested ones, each without those inside it.

    Args:
        synchronize: waits until the device has done what it was asked for.

    Attributes:
        seconds: by the stage's name.
    """

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self._synchronize = synchronize
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = 0.0

    @contextmanager
    def watch(self, stages: Sequence[Stage]) -> Iterator[None]:
        """Count the calls of the stages' functions inside the block.

        Raises:
            AttributeError: a stage's owner has no such function.
        """
        with ExitStack() as stack:
            for owner, attribute, name in stages:
                timed = self._timed(getattr(owner, attribute), name)
                stack.enter_context(patch.object(owner, attribute, timed))
            yield

    def _timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def timed(*arguments: Any, **keywords: Any) -> Any:
            self._switch()
            self._running.append(name)
            try:
                return function(*arguments, **keywords)
            finally:
                self._switch()
                self._running.pop()

        return timed

    def _switch(self) -> None:
        """Credit the time since the last switch to the innermost stage that runs."""
        self._synchronize()
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now
