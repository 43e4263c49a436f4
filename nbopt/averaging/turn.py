"""What keeps other threads away from an average, and from the parameters that it reads or writes."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from nbopt.errors import ConcurrencyError
from nbopt.standstill import Held, Standstill, tables_of

if TYPE_CHECKING:
    from nbopt.averaging.base import Average

__all__ = ["Turn"]


class Turn:
    """One call on an average at a time; a second thread is refused.

    With `done`, no optimizer steps the parameters meanwhile; it says what a step at that very instant spoils.
    """

    def __init__(self, average: Average, done: str | None = None):
        self._average = average
        self._lock = average._lock
        self._done = done
        self._held: Held | None = None

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise ConcurrencyError(
                f"another thread is using this {type(self._average).__name__}; nothing was changed. Hold a "
                "lock around its calls"
            )
        if self._done is not None:
            try:
                still = Standstill("these parameters", tables_of(self._average._buffer))
                self._held = still.held(self._done)
                self._held.__enter__()
            except BaseException:
                self._lock.release()
                raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._held is not None:
                self._held.__exit__(kind, error, trace)
        finally:
            self._lock.release()
