"""A data set's records as a sequence that makes each record when it is asked for."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, overload


class LazyRecords(Sequence[dict[str, Any]], ABC):
    """Immutable sequence of Detectron2 records; a subclass has ``__len__`` and ``_make_record``.

    It is indexed and sliced as a list is; a slice is a list of records.
    """

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        positions = range(len(self))[index]
        if isinstance(positions, range):
            return [self._make_record(position) for position in positions]
        return self._make_record(positions)

    @abstractmethod
    def _make_record(self, position: int) -> dict[str, Any]:
        """The record at a position in 0..len - 1."""
