"""Runs what is compiled: which twin, in how many threads, and what keeps these out of each other's way."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from nbopt.kernels import tables as t
from nbopt.kernels.cpu import average, compile_average, compile_step
from nbopt.kernels.rule import Rule

__all__ = ["PARALLEL_FROM", "BoundStep", "bind_average", "compile_twin"]

# Elements from which two threads beat one; below, starting them costs more than they save.
PARALLEL_FROM = 60_000

# What each pass of an average takes after the number of threads.
_PASS_NUMBERS = {
    "add_values": (numba.float64, numba.int64, numba.int64),
    "decay_values": (numba.float64,),
    "write_averages": (),
}

# The workqueue layer aborts the process when two threads enter it; which layer runs shows after one entry.
_workqueue_lock = threading.Lock()
_is_child = False
_live: weakref.WeakSet[BoundStep] = weakref.WeakSet()


def _mark_child() -> None:
    """After a fork the threads of the parent are gone: OpenMP would end the process."""
    global _is_child, _workqueue_lock
    _is_child = True
    _workqueue_lock = threading.Lock()
    for step in list(_live):
        step.leave_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_child)


class BoundStep:
    """The step of one optimizer over its tables; machine code is made when it is first needed.

    Parameters
    ----------
    rule : Rule
    dtype : numpy.dtype
    normed : bool
        Whether a parameter has weight norm.
    arrays : sequence of numpy.ndarray
        What `nbopt.kernels.tables` lists from TRAINABLE to COUNTERS, C-contiguous; kept alive here.
    elements : int
        How many elements a step moves.
    """

    def __init__(
        self, rule: Rule, dtype: np.dtype[Any], normed: bool, arrays: Sequence[NDArray[Any]], elements: int
    ):
        self._twin = functools.cache(lambda parallel: compile_twin(rule, dtype, normed, parallel))
        self._arrays = tuple(arrays)
        self._addresses = address_table(arrays)
        self._large = elements >= PARALLEL_FROM
        self._call = np.zeros(t.CALL_COLUMNS, np.int64)
        self._call[t.CALL_SELF] = self._call.ctypes.data
        _live.add(self)

    def _has_threads(self) -> bool:
        return self._large and _thread_count() > 1

    def entry(self) -> Callable[[], int]:
        """Compile, and return the step as a function without arguments; this object must outlive it."""
        address = self._addresses.ctypes.data
        first = functools.partial(self._twin(self._has_threads()).entry_point, address)
        if not self._large:
            return functools.partial(first, 1)

        def run() -> int:
            if not self._has_threads():
                return int(self._twin(False).entry_point(address, 1))
            with _entrance():
                return int(self._twin(True).entry_point(address, numba.get_num_threads()))

        return run

    def call(self) -> NDArray[np.int64]:
        """Compile, and return what `nbopt.kernels.intrinsics.enter` needs; it keeps this object alive.

        The workqueue layer ends the process when two threads enter it, and compiled code takes no lock: there
        the step runs in one thread.
        """
        code = self._twin(False)
        self._call[t.CALL_TABLES] = self._addresses.ctypes.data
        self._call[t.CALL_SERIAL] = _address(code)
        threads = 1
        if self._has_threads():
            parallel = self._twin(True)
            if _layer() in _SAFE_LAYERS:
                code, threads = parallel, numba.get_num_threads()
        self._call[t.CALL_CODE], self._call[t.CALL_THREADS] = _address(code), threads
        return np.asarray(_Lent(self, self._call))

    def leave_parent(self) -> None:
        """In a child process, let compiled code run in one thread, and free what a lost thread held."""
        self._call[t.CALL_CODE], self._call[t.CALL_THREADS] = self._call[t.CALL_SERIAL], 1
        self._arrays[t.COUNTERS][t.BUSY] = 0


class _Lent:
    """The memory of an array, with an owner that lives as long as any array of it."""

    def __init__(self, owner: object, array: NDArray[Any]):
        self.owner = owner
        self.__array_interface__ = array.__array_interface__


def compile_twin(rule: Rule, dtype: np.dtype[Any], normed: bool, parallel: bool) -> Any:
    """Compile one twin for the one kind of arguments.

    It never changes, so the dispatcher's look at each argument, half the cost of a small step, is saved by
    calling the machine code's own entry.
    """
    return compile_step(rule, dtype, normed, parallel).compile((numba.int64, numba.int64))


def bind_average(name: str, dtype: np.dtype[Any], arrays: Sequence[NDArray[Any]]) -> Callable[..., None]:
    """Return a pass as a function of its numbers; machine code is made when it is first called.

    Parameters
    ----------
    name : str
        ``add_values``, ``decay_values`` or ``write_averages``, of `nbopt.kernels.cpu.average`.
    dtype : numpy.dtype
        float32 or float64.
    arrays : sequence of numpy.ndarray
        What the pass takes after its numbers: the trainable part first.
    """
    signature = numba.int64, *_PASS_NUMBERS[name], *map(numba.typeof, arrays)
    is_large = arrays[0].size >= PARALLEL_FROM

    @functools.cache
    def entry(parallel: bool) -> Callable[..., None]:
        compiled = compile_average(getattr(average, name), dtype, parallel).compile(signature)
        code: Callable[..., None] = compiled.entry_point
        return code

    def sweep(*numbers: float) -> None:
        threads = _thread_count() if is_large else 1
        if threads == 1:
            entry(False)(1, *numbers, *arrays)
        else:
            with _entrance():
                entry(True)(threads, *numbers, *arrays)

    return sweep


def _address(compiled: Any) -> int:
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name))


_SAFE_LAYERS = ("omp", "tbb")  # that several threads may enter


def _layer() -> str:
    try:
        return str(numba.threading_layer())
    except ValueError:
        return "unknown"


def _thread_count() -> int:
    """How many threads work on what is large; one in a child process, which has none of its parent's."""
    return 1 if _is_child else numba.get_num_threads()


def _entrance() -> contextlib.AbstractContextManager[Any]:
    """What to hold while a parallel region runs."""
    return contextlib.nullcontext() if _layer() in _SAFE_LAYERS else _workqueue_lock


def address_table(arrays: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """Return the table of addresses that a compiled step reads."""
    assert len(arrays) == t.TABLES
    addresses = np.empty((t.TABLES, t.ADDRESS_COLUMNS), np.int64)
    for index, array in enumerate(arrays):
        assert array.flags.c_contiguous
        rows = 1 if array.ndim == 1 else array.shape[0]
        addresses[index] = array.ctypes.data, rows, array.shape[-1]
    return addresses
