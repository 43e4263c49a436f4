"""Keeps other threads, and Ctrl-C, from an average and from the parameters that it reads or writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nbopt.errors import ConcurrencyError
from nbopt.interrupts import uninterrupted
from nbopt.standstill import Standstill, tables_of

if TYPE_CHECKING:
    from nbopt.averaging.base import Average

__all__ = ["turn"]


@contextmanager
def turn(average: Average, done: str | None = None) -> Iterator[None]:
    """One call on an average at a time: a second thread is refused, and Ctrl-C waits.

    With `done`, no optimizer steps the parameters meanwhile; it says what a step at that very instant spoils.
    """
    with uninterrupted():
        if not average._lock.acquire(blocking=False):
            raise ConcurrencyError(
                f"another thread is using this {type(average).__name__}; nothing was changed. Hold a lock "
                "around its calls"
            )
        try:
            if done is None:
                yield
            else:
                with Standstill("these parameters", tables_of(average._buffer)).held(done):
                    yield
        finally:
            average._lock.release()
