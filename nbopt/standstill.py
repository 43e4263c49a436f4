"""Times in which optimizers must not step: while what they remember, or move, is read or replaced."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from nbopt.errors import ConcurrencyError
from nbopt.kernels import tables as t
from nbopt.memory import Memory, Table

if TYPE_CHECKING:
    from nbopt.buffer import ParameterBuffer
    from nbopt.storage import Storage

__all__ = ["Standstill", "Stepped", "enlist", "tables_of"]

_listing = threading.RLock()  # two threads may make optimizers at once


def _free_in_child() -> None:
    """After a fork, the thread that held the lock is gone."""
    global _listing
    _listing = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_in_child)


class Stepped(Protocol):
    """What is asked of the tables of an optimizer."""

    memory: Memory
    counters: Table


def enlist(storage: Storage, tables: Stepped) -> None:
    """Note the tables of an optimizer over a storage; that keeps nothing alive."""
    with _listing:
        alive = (ref for ref in storage.stepped_by if ref() is not None)
        storage.stepped_by = (*alive, weakref.ref(tables))


def tables_of(buffer: ParameterBuffer) -> list[Any]:
    """Return the tables of every optimizer over a buffer."""
    references = buffer._seal().stepped_by if buffer.is_sealed else ()
    return [tables for ref in references if (tables := ref()) is not None]


class Standstill:
    """A time that begins when this is made, and in which other threads take no steps.

    Parameters
    ----------
    what : str
        How a message calls what they would step.
    tables : iterable of Stepped
        Of the optimizers.

    Raises
    ------
    ConcurrencyError
        If a step is under way.
    """

    def __init__(self, what: str, tables: Iterable[Stepped]):
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

    def held(
        self, done: str = "it was filled in, which is a mixture now: load or restore it again, between steps"
    ) -> Held:
        """Refuse steps until the end of a block; one that began in the very instant is an error, too."""
        return Held(self._what, self.tables, done)


class Held:
    """A block in which steps are refused, see `Standstill.held`."""

    def __init__(self, what: str, tables: Iterable[Stepped], done: str):
        self._what = what
        self._counters = [one.counters for one in tables if one.memory.is_host]
        self._done = done

    def __enter__(self) -> None:
        for counters in self._counters:
            counters[t.BUSY] = 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        broken = False
        for counters in self._counters:
            broken = broken or not counters[t.BUSY]
            counters[t.BUSY] = 0
        if broken and error is None:
            raise ConcurrencyError(f"another thread stepped {self._what} while {self._done}")
