"""The CPU backend: compiles steps, passes of averages and functions of arrays."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from nbopt.kernels import fold, normed, scalars, slices, trees
from nbopt.kernels.adaptors import adaptors
from nbopt.kernels.bind import Binder
from nbopt.kernels.cache import Cached
from nbopt.kernels.cpu import average, late, reduce, step, update
from nbopt.kernels.rule import Rule

__all__ = ["compile_array", "compile_average", "compile_step"]

# Rewriting is for what the kernels do not hold, such as expressions of arrays, and takes a tenth of the time.
_ROOT: dict[str, Any] = {"error_model": "numpy", "nogil": True, "no_rewrites": True}
# What only the root calls needs no entry from Python.
_INNER = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
# Products of float32 are exact in float64, so contraction changes no bit of these sums (contract N3).
_CONTRACTED = frozenset(
    {
        reduce.add_products,
        reduce.add_squares,
        reduce.product_sums,
        reduce.short_products,
        reduce.square_sum,
    }
)
_THREADED = frozenset({average.sweep, step.reduce_all, step.update_all, step.compose_all})
# What a thread runs is not inlined either: Numba rewrites the body of a parallel loop.
_OF_A_THREAD = frozenset({average.sweep_range, reduce.reduce_range, step.update_range, late.compose_range})
# Called, not inlined: a call costs nothing beside their work, and inlining compiles them at every level.
_CALLED = frozenset(
    {
        fold.clip_to,
        trees.pairwise,
        slices.fold_columns,
        slices.form_slices,
        slices.scaled_products,
        late.compose_tile,
        late.fold_squares,
        late.update_columns,
        late.update_piece,
        late.update_tile,
        reduce.product_sums,
        reduce.slice_products,
        reduce.slice_squares,
        reduce.tile_products,
        normed.compose_factors,
        update.update_direction,
        normed.update_magnitudes,
        update.update_rows,
        update.write_slice,
    }
)


def _binder(dtype: np.dtype[Any], replacements: dict[str, Any], parallel: bool) -> Binder:
    single = dtype == np.float32

    def lift(function: Callable[..., Any], template: Callable[..., Any]) -> Any:
        options: dict[str, Any] = {**_INNER, "forceinline": template not in _CALLED}
        options["no_rewrites"] = (template.__module__ or "").startswith("nbopt.kernels")
        if single and template in _CONTRACTED:
            options["fastmath"] = {"contract"}
        if parallel and template in _THREADED:
            options["parallel"] = True
        return numba.njit(**options)(function)

    constants = {
        **scalars.storage_constants(dtype),
        "bin_sums": reduce.bins_of_single if single else reduce.bins_of_double,
    }
    called = _CALLED | _CONTRACTED | (_THREADED | _OF_A_THREAD if parallel else frozenset())
    names = [sorted(function.__name__ for function in kind) for kind in (_CALLED, _CONTRACTED)]
    options = f"parallel={parallel} called, contracted: {names}"
    return Binder(lift, {**constants, **replacements}, dtype, options, called)


@functools.cache
def compile_step(rule: Rule, dtype: np.dtype[Any], normed: bool, parallel: bool) -> Cached:
    """Return the step; nothing is compiled until it meets its arguments.

    Parameters
    ----------
    rule : Rule
    dtype : numpy.dtype
        float32 or float64.
    normed : bool
        Whether a parameter has weight norm.
    parallel : bool
        Whether the loops run in threads.
    """
    binder = _binder(dtype, {**adaptors(rule), "NORMED": normed, "PARALLEL": parallel}, parallel)
    assert isinstance(step.step, types.FunctionType)
    return Cached(binder.bind(step.step), **_ROOT)


@functools.cache
def compile_average(template: types.FunctionType, dtype: np.dtype[Any], parallel: bool) -> Cached:
    """Return one pass of `nbopt.kernels.cpu.average`, compiled as `compile_step` compiles a step."""
    return Cached(_binder(dtype, {}, parallel).bind(template), **_ROOT)


@functools.cache
def compile_array(template: types.FunctionType, dtype: np.dtype[Any]) -> Cached:
    """Return one function of `nbopt.kernels.cpu.arrays`."""
    return Cached(_binder(dtype, {}, False).bind(template), **_ROOT)
