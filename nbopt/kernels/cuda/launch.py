"""Compiles the launches of a step for a GPU, or binds them for the simulator."""

from __future__ import annotations

import functools
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np

from nbopt.kernels import scalars
from nbopt.kernels.adaptors import adaptors
from nbopt.kernels.bind import Binder
from nbopt.kernels.cache import Cached
from nbopt.kernels.cuda import simulated, step, warp
from nbopt.kernels.cuda.device import import_cuda, is_simulated
from nbopt.kernels.rule import Rule

__all__ = ["bind_launches", "compile_launches", "roundings_as_written"]

# Of every kernel: the address of the table of addresses.
SIGNATURE = (numba.int64,)
# Three blocks of 256 threads to a multiprocessor: what little does not fit is read from the cache. Where the
# linker optimizes, which numba-cuda lets it do if it can, it joins operations again (contract N4).
OPTIONS = {"max_registers": 80, "lto": False}
_compiling = threading.Lock()


def bind_launches(rule: Rule, dtype: np.dtype[Any], normed: bool) -> dict[str, types.FunctionType]:
    """Return the launches of a step by name, in their order: flat functions, not compiled.

    Parameters
    ----------
    rule : Rule
    dtype : numpy.dtype
        float32 or float64.
    normed : bool
        Whether a parameter has weight norm.
    """
    launches: list[Any] = [step.reduce, step.update, *([step.compose] if normed else [])]
    replacements: dict[str, Any] = {
        **scalars.storage_constants(dtype),
        **warp.REPLACEMENTS,
        **adaptors(rule),
        "NORMED": normed,
    }
    views = None
    if is_simulated():
        replacements.update(simulated.REPLACEMENTS)
        views = simulated.VIEWS

    def lift(function: Callable[..., Any], template: Callable[..., Any]) -> Any:
        return function if is_simulated() else import_cuda().jit(device=True, inline="always")(function)

    options = f"cuda, fma=False, {OPTIONS}"
    # One binder each: a name that carries the fingerprint of one launch is not taken for another's.
    return {
        launch.__name__: Binder(lift, replacements, dtype, options, views=views).bind(launch)
        for launch in launches
    }


@functools.cache
def compile_launches(rule: Rule, dtype: np.dtype[Any], normed: bool, number: int) -> tuple[Any, ...]:
    """Return the kernels of a step in their order, compiled for device `number`, the current one, and loaded.

    What was compiled is kept on disk by compute capability; nothing is compiled or loaded at a launch.
    """
    functions = bind_launches(rule, dtype, normed).values()
    jit = import_cuda().jit
    if is_simulated():
        return tuple(map(jit, functions))
    with roundings_as_written():
        kernels = tuple(Cached(function, jit, **OPTIONS).compile(SIGNATURE) for function in functions)
    for kernel in kernels:
        kernel.bind()
    return kernels


@contextmanager
def roundings_as_written() -> Iterator[None]:
    """Compile without joining a product and a sum into one operation (contract N4).

    NVVM does so by default, and numba-cuda hands on no option of it.
    """
    from numba.cuda.cudadrv import nvvm

    unit = nvvm.CompilationUnit
    with _compiling:
        usual = unit.__init__

        def init(self: Any, options: Any) -> None:
            usual(self, {**options, "fma": False})

        unit.__init__ = init
        try:
            yield
        finally:
            unit.__init__ = usual
