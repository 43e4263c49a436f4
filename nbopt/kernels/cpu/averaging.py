"""Compiles the passes of an average, and runs them in as many threads as a step takes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from nbopt.kernels import scalars
from nbopt.kernels.bind import Binder
from nbopt.kernels.cache import Cached
from nbopt.kernels.cpu import average, run

__all__ = ["bind_average"]

_ROOT = {"error_model": "numpy", "nogil": True}
_INNER = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_CALLED = frozenset({average.sweep, average.sweep_range})
# The numbers that each pass takes after the number of threads.
_NUMBERS = {
    "add_values": (numba.float64, numba.int64, numba.int64),
    "decay_values": (numba.float64,),
    "write_averages": (),
}


@functools.cache
def compile_average(name: str, dtype: np.dtype[Any], parallel: bool) -> Cached:
    """Return one function of `nbopt.kernels.cpu.average`, compiled when it meets its arguments."""

    def lift(function: Callable[..., Any], origin: Callable[..., Any]) -> Any:
        options: dict[str, Any] = {**_INNER, "forceinline": origin not in _CALLED}
        if parallel and origin is average.sweep:
            options["parallel"] = True
        return numba.njit(**options)(function)

    binder = Binder(lift, scalars.storage_constants(dtype), dtype, f"parallel={parallel}", _CALLED)
    return Cached(binder.bind(getattr(average, name)), **_ROOT)


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
    signature = numba.int64, *_NUMBERS[name], *map(numba.typeof, arrays)
    is_large = arrays[0].size >= run.PARALLEL_FROM

    @functools.cache
    def entry(parallel: bool) -> Callable[..., None]:
        code: Callable[..., None] = compile_average(name, dtype, parallel).compile(signature).entry_point
        return code

    def sweep(*numbers: float) -> None:
        threads = numba.get_num_threads() if is_large and not run._is_child else 1
        if threads == 1:
            entry(False)(1, *numbers, *arrays)
        else:
            with run._entrance():
                entry(True)(threads, *numbers, *arrays)

    return sweep
