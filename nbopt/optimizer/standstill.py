"""Times in which optimizers must not step: while what they remember, or move, is read or replaced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from nbopt.errors import ConcurrencyError
from nbopt.kernels import tables as t
from nbopt.optimizer.tables import Tables

__all__ = ["Standstill"]


class Standstill:
    """A time that begins when this is made, and in which other threads take no steps.

    Parameters
    ----------
    what : str
        How a message calls what they would step.
    tables : iterable of Tables
        Of the optimizers.

    Raises
    ------
    ConcurrencyError
        If a step is under way.
    """

    def __init__(self, what: str, tables: Iterable[Tables]):
        self._what = what
        self.tables = list(tables)
        self._before = self._count()

    def _count(self) -> list[tuple[int, int]]:
        found = []
        for tables in self.tables:
            counters = tables.counters[:]
            if counters[t.BUSY]:
                raise ConcurrencyError(
                    f"another thread is stepping {self._what}; save, load and restore between steps"
                )
            found.append((int(counters[t.STEPS]), int(counters[t.SKIPPED])))
        return found

    def check(self, done: str) -> None:
        """Raise if there was a step; `done` says what happened meanwhile, and what came of it."""
        if self._count() != self._before:
            raise ConcurrencyError(f"another thread stepped {self._what} while {done}")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Refuse steps until the end of the block; one that began in the very instant is an error, too."""
        hosts = [tables for tables in self.tables if tables.memory.is_host]
        for tables in hosts:
            tables.counters[t.BUSY] = 1
        broken = False
        try:
            yield
        finally:
            for tables in hosts:
                broken = broken or not tables.counters[t.BUSY]
                tables.counters[t.BUSY] = 0
        if broken:
            raise ConcurrencyError(
                f"another thread stepped {self._what} while it was filled in, which is a mixture now: "
                "load or restore it again, between steps"
            )
