"""Runs a compiled step on a CUDA device: two launches, or three, in the stream of the memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nbopt.kernels import tables as t
from nbopt.kernels.cuda.device import is_simulated, small_grids
from nbopt.kernels.cuda.launch import compile_launches
from nbopt.kernels.cuda.memory import CudaMemory, address
from nbopt.kernels.rule import Rule

__all__ = ["BoundStep", "PlainLaunch", "QuickLaunch"]

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
        self._entrance = threading.Lock()
        rows = [1 if array.ndim == 1 else array.shape[0] for array in arrays]
        self._addresses = memory.upload(
            np.array(
                [(address(a), n, a.shape[a.ndim - 1]) for a, n in zip(arrays, rows, strict=True)], np.int64
            ).reshape(t.TABLES, t.ADDRESS_COLUMNS)
        )
        chunks = arrays[t.CHUNKS].shape[0] - 1
        self._blocks = max(1, min(MOST_BLOCKS, -(-chunks * 32 // THREADS)))
        self._late = arrays[t.TILES].size > 0  # whether a w waits for the sums of several chunks

    def entry(self) -> Callable[[], int]:
        """Compile, and return a function without arguments that launches a step and returns 0.

        It allocates nothing, compiles nothing and waits for nothing, so that a CUDA graph can capture it.
        """
        memory, entrance = self._memory, self._entrance
        with memory.context:
            kernels = compile_launches(*self._program, memory.number)
            used = kernels if self._late else kernels[:2]
            launches = [launch_of(kernel, self._blocks, address(self._addresses)) for kernel in used]

        def run() -> int:
            # The launches of two threads must not mix.
            if not entrance.acquire(blocking=False):
                return t.CONCURRENT
            try:
                with memory.context:
                    for launch in launches:
                        launch(memory.stream)
            finally:
                entrance.release()
            return t.STEPPED

        return run


def launch_of(kernel: Any, blocks: int, argument: int) -> Callable[[Any], None]:
    """Return a function that launches a kernel in a stream."""
    try:
        return QuickLaunch(kernel, blocks, argument)
    except (AttributeError, ImportError, TypeError):  # other versions of numba-cuda, and the simulator
        return PlainLaunch(kernel, blocks, argument)


class PlainLaunch:
    """The launch of a kernel by numba-cuda.

    Parameters
    ----------
    kernel : kernel of numba.cuda
        Compiled and loaded; in the simulator a dispatcher.
    blocks : int
    argument : int
        The one argument, of int64.
    """

    def __init__(self, kernel: Any, blocks: int, argument: int):
        self._kernel, self._blocks, self._argument = kernel, blocks, argument

    def __call__(self, stream: Any) -> None:
        """Launch in a stream of numba.cuda."""
        if is_simulated():
            with small_grids():
                self._kernel[self._blocks, THREADS, stream](self._argument)
        else:
            from numba.cuda.cudadrv import driver

            core_stream = driver._to_core_stream(stream)
            self._kernel.launch((self._argument,), (self._blocks, 1, 1), (THREADS, 1, 1), core_stream)


class QuickLaunch:
    """The launch of a kernel by the driver, without the look of numba-cuda at arguments and types.

    That look costs more than all the rest of a small step. The arguments are `PlainLaunch`'s.
    """

    def __init__(self, kernel: Any, blocks: int, argument: int):
        from numba.cuda.cudadrv.driver import binding, driver

        function = kernel.library.get_cufunc().handle
        if isinstance(function, binding.CUkernel):
            # That of this device; asking for it loads it.
            function = driver.cuKernelGetFunction(function)
        # What the driver reads at every launch: pointers to the arguments.
        self._argument = np.array([argument], np.int64)
        self._pointers = np.array([self._argument.ctypes.data], np.uintp)
        self._function, self._blocks = binding.CUfunction(int(function)), blocks
        self._where = self._pointers.ctypes.data
        self._launch = driver.cuLaunchKernel

    def __call__(self, stream: Any) -> None:
        """Launch in a stream of numba.cuda."""
        self._launch(self._function, self._blocks, 1, 1, THREADS, 1, 1, 0, stream.handle, self._where, 0)
