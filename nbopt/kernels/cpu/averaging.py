"""Runs the passes of an average in as many threads as a step takes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from nbopt.kernels.cpu import average, compile_average, run

__all__ = ["bind_average"]

# The numbers that each pass takes after the number of threads.
_NUMBERS = {
    "add_values": (numba.float64, numba.int64, numba.int64),
    "decay_values": (numba.float64,),
    "write_averages": (),
}


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
        compiled = compile_average(getattr(average, name), dtype, parallel).compile(signature)
        code: Callable[..., None] = compiled.entry_point
        return code

    def sweep(*numbers: float) -> None:
        threads = run.thread_count() if is_large else 1
        if threads == 1:
            entry(False)(1, *numbers, *arrays)
        else:
            with run.entrance():
                entry(True)(threads, *numbers, *arrays)

    return sweep
