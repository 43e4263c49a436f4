"""Runs a compiled step: which twin, and what keeps threads out of each other's way."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from nbopt.kernels.cpu import compile_step
from nbopt.kernels.rules import Rule

__all__ = ["PARALLEL_FROM", "bind_step"]

# Elements from which two threads beat one; below, starting them costs more than they save.
PARALLEL_FROM = 60_000

# Numba's workqueue layer aborts the process when two threads enter it; which layer runs is known after the first entry.
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
    rule: Rule, dtype: np.dtype[Any], normed: bool, arguments: tuple[Any, ...], elements: int
) -> Callable[[], int]:
    """Return a function without arguments that takes one step.

    Parameters
    ----------
    rule : Rule
    dtype : numpy.dtype
    normed : bool
        Whether a parameter has weight norm.
    arguments : tuple
        Of `nbopt.kernels.cpu.step.step`, but for the number of threads.
    elements : int
        How many elements a step moves.
    """
    serial = functools.partial(_entry(compile_step(rule, dtype, normed, False), (*arguments, 1)), *arguments, 1)
    if elements < PARALLEL_FROM:
        return serial
    parallel: Callable[..., int] | None = None

    def run() -> int:
        nonlocal parallel
        threads = numba.get_num_threads()
        if threads == 1 or _is_child:
            return serial()
        if parallel is None:
            parallel = functools.partial(
                _entry(compile_step(rule, dtype, normed, True), (*arguments, threads)), *arguments
            )
        with _entrance():
            return parallel(threads)

    return run


def _entrance() -> contextlib.AbstractContextManager[Any]:
    """What to hold while a parallel region runs."""
    try:
        layer = numba.threading_layer()
    except ValueError:
        layer = "unknown"
    return contextlib.nullcontext() if layer in ("omp", "tbb") else _workqueue_lock


def _entry(dispatcher: Any, arguments: tuple[Any, ...]) -> Callable[..., int]:
    """Compile for these arguments, and return the machine code's own entry.

    The arguments of an optimizer never change type, so the dispatcher's look at them, half the cost of a small step, is
    taken once, here.
    """
    signature = tuple(numba.typeof(argument) for argument in arguments)
    dispatcher.compile(signature)
    entry = getattr(dispatcher.overloads[signature], "entry_point", None)
    return dispatcher if entry is None else entry  # type: ignore[no-any-return]
