"""The intrinsics as plain functions, for Numba's simulator, which runs kernels as Python on the host."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbopt.kernels import tables as t
from nbopt.kernels.flatten import Views

__all__ = ["REPLACEMENTS", "VIEWS"]


def array_at(address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """An array of the host by its address, which somebody else keeps alive."""
    size = int(np.prod(shape, dtype=np.int64))
    memory = (ctypes.c_byte * (size * np.dtype(dtype).itemsize)).from_address(int(address))
    return np.frombuffer(memory, dtype).reshape(shape) if size else np.zeros(shape, dtype)


def pointer(address: int) -> NDArray[Any]:
    """The table of addresses."""
    return array_at(address, (t.TABLES, t.ADDRESS_COLUMNS), np.int64)


def element_rows(tables: NDArray[Any], index: int, storage: Any) -> NDArray[Any]:
    """Table `index`, 2-D."""
    return array_at(tables[index, 0], (tables[index, 1], tables[index, 2]), storage)


def elements(tables: NDArray[Any], index: int, storage: Any) -> NDArray[Any]:
    """Table `index`, 1-D."""
    return array_at(tables[index, 0], (tables[index, 2],), storage)


def reals(tables: NDArray[Any], index: int) -> NDArray[Any]:
    """Table `index` of float64."""
    return element_rows(tables, index, np.float64)


def integers(tables: NDArray[Any], index: int) -> NDArray[Any]:
    """Table `index` of int64."""
    return element_rows(tables, index, np.int64)


def read(array: NDArray[Any], row: int, column: int) -> Any:
    """One element."""
    return array[row, column]


def write(array: NDArray[Any], row: int, column: int, value: Any) -> None:
    """Set one element."""
    array[row, column] = value


def stack(size: int) -> NDArray[Any]:
    """Room for some float64."""
    return np.zeros(size)


def scratch(size: int, storage: Any) -> NDArray[Any]:
    """Room for some elements."""
    return np.zeros(size, storage)


def load4(tables: NDArray[Any], index: int, row: int, at: int, storage: Any) -> tuple[Any, ...]:
    """Four elements of a table."""
    return tuple(element_rows(tables, index, storage)[row, at : at + 4])


def store4(tables: NDArray[Any], index: int, row: int, at: int, storage: Any, *quad: Any) -> None:
    """Write four elements of a table."""
    element_rows(tables, index, storage)[row, at : at + 4] = quad


def alone(value: Any) -> Any:
    """The one number that a rule returned, by itself or in a tuple."""
    return value[0] if isinstance(value, tuple) else value


# Not functions to the binder, which leaves them as they are.
REPLACEMENTS = {
    function.__name__: functools.partial(function)
    for function in (pointer, element_rows, elements, reals, integers, stack, scratch, load4, store4, alone)
}
VIEWS = Views(
    [REPLACEMENTS[name] for name in ("element_rows", "elements", "reals", "integers")],
    functools.partial(read),
    functools.partial(write),
)
