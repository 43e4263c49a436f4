"""What a step has found in the float environment, and the warning that says so (contract N10)."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING

from nbopt.errors import FloatEnvironmentWarning
from nbopt.kernels import tables as t

if TYPE_CHECKING:
    from nbopt.optimizer.tables import Tables

__all__ = ["note", "warn_found", "warn_once"]

_WHERE = {
    t.FLUSHED_CALLER: "in every thread that worked in the step",
    t.FLUSHED_APART: "in worker threads, but not in the thread that called the step",
    t.FLUSHED_CALLER | t.FLUSHED_APART: "in some threads of the step, the one that called it among them",
}
_first = threading.Lock()  # taken by the first warning of the process, and kept


def note(tables: Tables) -> None:
    """Keep what steps have found for `warn_found`, and let the next one look afresh."""
    tables.flushed |= int(tables.counters[t.FLUSHED])
    tables.counters[t.FLUSHED] = 0


def warn_once(tables: Tables) -> None:
    """Say what a step has just found, once per process; it is kept for `warn_found`."""
    note(tables)
    if _first.acquire(blocking=False):
        _warn(tables.flushed, 5)


def warn_found(tables: Tables) -> None:
    """Say what steps have found since this was last called."""
    note(tables)
    found, tables.flushed = tables.flushed, 0
    if found:
        _first.acquire(blocking=False)
        _warn(found, 4)


def _warn(found: int, stacklevel: int) -> None:
    warnings.warn(
        f"subnormal numbers were taken for zero {_WHERE[found]}: another library has set the float control "
        "word so. Numbers below the smallest normal one are lost; while this lasts, equal bits for every "
        "number of threads are not promised. Undo it, with torch.set_flush_denormal(False) if torch did it. "
        "Worker threads keep what held in the thread that started them: undo it before the first step of a "
        "large model, or call numba.set_num_threads(1)",
        FloatEnvironmentWarning,
        stacklevel=stacklevel,
    )
