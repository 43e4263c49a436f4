"""Runs a compiled step: which twin, and what keeps threads out of each other's way."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from nbopt.kernels import tables as t
from nbopt.kernels.cache import Cached
from nbopt.kernels.cpu import compile_step
from nbopt.kernels.rule import Rule

__all__ = ["PARALLEL_FROM", "bind_step"]

# Elements from which two threads beat one; below, starting them costs more than they save.
PARALLEL_FROM = 60_000

# The workqueue layer aborts the process when two threads enter it; which layer runs shows after one entry.
_workqueue_lock = threading.Lock()
_is_child = False


def _mark_child() -> None:
    """After a fork the threads of the parent are gone: OpenMP would end the process."""
    global _is_child, _workqueue_lock
    _is_child = True
    _workqueue_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_child)


def bind_step(
    rule: Rule, dtype: np.dtype[Any], normed: bool, arrays: Sequence[NDArray[Any]], elements: int
) -> Callable[[], int]:
    """Return a function without arguments that takes one step.

    Parameters
    ----------
    rule : Rule
    dtype : numpy.dtype
    normed : bool
        Whether a parameter has weight norm.
    arrays : sequence of numpy.ndarray
        What `nbopt.kernels.tables` lists from TRAINABLE to COUNTERS; C-contiguous, and kept alive by the
        caller.
    elements : int
        How many elements a step moves.
    """
    addresses = address_table(arrays)

    @functools.cache
    def twin(parallel: bool) -> Callable[..., int]:
        return functools.partial(_entry(compile_step(rule, dtype, normed, parallel), addresses), addresses)

    if elements < PARALLEL_FROM:
        return functools.partial(twin(False), 1)

    def run() -> int:
        threads = numba.get_num_threads()
        if threads == 1 or _is_child:
            return twin(False)(1)
        with _entrance():
            return twin(True)(threads)

    twin(numba.get_num_threads() > 1 and not _is_child)
    return run


def _entrance() -> contextlib.AbstractContextManager[Any]:
    """What to hold while a parallel region runs."""
    try:
        layer = numba.threading_layer()
    except ValueError:
        layer = "unknown"
    return contextlib.nullcontext() if layer in ("omp", "tbb") else _workqueue_lock


def address_table(arrays: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """Return the table of addresses that a compiled step reads."""
    assert len(arrays) == t.TABLES
    addresses = np.empty((t.TABLES, t.ADDRESS_COLUMNS), np.int64)
    for index, array in enumerate(arrays):
        assert array.flags.c_contiguous
        rows = 1 if array.ndim == 1 else array.shape[0]
        addresses[index] = array.ctypes.data, rows, array.shape[-1]
    return addresses


def _entry(kernel: Cached, addresses: NDArray[np.int64]) -> Callable[..., int]:
    """Compile, and return the machine code's own entry.

    The arguments never change type, so the dispatcher's look at them, half the cost of a small step, is
    taken once.
    """
    signature = (numba.typeof(addresses), numba.int64)
    entry: Callable[..., int] | None = getattr(kernel.compile(signature), "entry_point", None)
    return kernel if entry is None else entry
