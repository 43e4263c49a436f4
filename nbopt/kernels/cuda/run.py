"""Runs a compiled step on a CUDA device: two launches, or three, in the stream of the memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba.core.errors import NumbaPerformanceWarning

from nbopt.kernels import tables as t
from nbopt.kernels.cuda.device import is_simulated
from nbopt.kernels.cuda.launch import compile_launches
from nbopt.kernels.cuda.memory import CudaMemory, address
from nbopt.kernels.rule import Rule

__all__ = ["BoundStep"]

# A thread of the simulator is one of the host.
THREADS = 32 if is_simulated() else 256
MOST_BLOCKS = 2 if is_simulated() else 2048


class BoundStep:
    """The step of one optimizer over its tables on a device.

    Parameters
    ----------
    rule : Rule
    dtype : numpy.dtype
    normed : bool
        Whether a parameter has weight norm.
    arrays : sequence of numba.cuda arrays
        What `nbopt.kernels.tables` lists from TRAINABLE to COUNTERS; kept alive here.
    elements : int
        How many elements a step moves.
    memory : CudaMemory
    """

    def __init__(
        self,
        rule: Rule,
        dtype: np.dtype[Any],
        normed: bool,
        arrays: Sequence[Any],
        elements: int,
        memory: CudaMemory,
    ):
        self._program = rule, dtype, normed
        self._arrays = tuple(arrays)
        self._memory = memory
        rows = [1 if array.ndim == 1 else array.shape[0] for array in arrays]
        self._addresses = memory.upload(
            np.array(
                [(address(a), n, a.shape[a.ndim - 1]) for a, n in zip(arrays, rows, strict=True)], np.int64
            ).reshape(t.TABLES, t.ADDRESS_COLUMNS)
        )
        chunks = arrays[t.CHUNKS].shape[0] - 1
        self._blocks = max(1, min(MOST_BLOCKS, -(-chunks * 32 // THREADS)))

    def entry(self) -> Callable[[], int]:
        """Compile, and return a function without arguments that launches a step and returns 0."""
        memory, where = self._memory, address(self._addresses)
        with memory.context:
            kernels = compile_launches(*self._program)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NumbaPerformanceWarning)
                launches = [kernel[self._blocks, THREADS, memory.stream] for kernel in kernels]

        def run() -> int:
            with memory.context:
                for launch in launches:
                    launch(where)
            return t.STEPPED

        return run
