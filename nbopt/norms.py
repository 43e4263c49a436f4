"""Norms of plain arrays, and weight norm on them: the kernels of the step, for whoever holds arrays."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nbopt._calls import check_calls
from nbopt._validation import as_array, as_integer
from nbopt.errors import ParameterError
from nbopt.kernels import scalars, tables
from nbopt.layout import as_slices, magnitude_shape, sums_of
from nbopt.memory import on_host

__all__ = ["norm"]


@partial(check_calls, hints={"axis": "dim is the axis that is kept, where axis is the one that is reduced"})
def norm(array: ArrayLike, dim: int | None = None) -> float | NDArray[np.float64]:
    """Euclidean norm of an array, or of its slices along one axis.

    Squares are summed in float64 in a fixed shape, so nothing overflows or underflows on the way, the
    result is non-finite exactly when an element is (or when it exceeds the float64 range), and its bits
    depend on the elements alone.

    Parameters
    ----------
    array : array_like
        Real numbers of any shape. float32 and float64 are taken as they are, other real types as float64. One
        of a GPU is copied to the host.
    dim : int, optional
        The axis that is kept, ``0 <= dim < ndim``; None for one norm over all elements.

    Returns
    -------
    float or numpy.ndarray
        A float, or an array of float64 of shape ``(array.shape[dim],)``.

    Raises
    ------
    TypeError
        If the elements are no real numbers.
    ParameterError
        If `dim` is out of range.

    Notes
    -----
    The contract states the error: a few dozen units of 2**-53. The scaling by exponent bins follows Blue
    (1978).

    Examples
    --------
    >>> import numpy as np
    >>> import nbopt as nb
    >>> round(nb.norm(np.float32([3e30, 4e30])) / 1e30, 6)
    5.0
    >>> nb.norm([[3.0, 4.0], [0.0, 2.0]], dim=0)
    array([5., 2.])
    """
    if isinstance(array, Mapping):
        raise TypeError(
            f"norm takes an array, got {type(array).__name__}; write params.to_vector(), or a value"
        )
    values = as_array(on_host(array), "array of norm")
    if values.dtype.kind not in "iuf":
        raise TypeError(f"norm takes real numbers, got dtype {values.dtype}")
    if values.dtype not in (np.float32, np.float64) or not values.dtype.isnative:
        values = values.astype(np.float64)
    if dim is None:
        mantissa, scale = scalars.magnitude_of(*square_bins(np.ascontiguousarray(values).reshape(-1)))
        return float(mantissa * scale)
    dim = as_integer(dim, "dim", error=ParameterError)
    if not 0 <= dim < values.ndim:
        raise ParameterError(f"dim is the kept axis, 0 <= dim < {values.ndim}, got {dim}")
    squares, _, _, powers, _ = slice_sums(values, values, dim)
    with np.errstate(over="ignore"):
        norms: NDArray[np.float64] = np.sqrt(squares) / powers
    return norms


def square_bins(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return the sum of squares of a contiguous 1-D array by exponent bin, shape (3,)."""
    from nbopt.kernels.cpu import arrays, compile_array

    partials = np.zeros((tables.BINS, max(1, -(-values.size // tables.BLOCK))))
    if values.size:
        compile_array(arrays.array_squares, values.dtype)(_lent(values), partials)
    bins: NDArray[np.float64] = partials[:, 0].copy()
    return bins


def _lent(values: NDArray[Any]) -> NDArray[Any]:
    """Return an array as one that can be written: a read-only one would make the kernels compile again."""
    if values.flags.writeable:
        return values
    ctype = np.ctypeslib.as_ctypes_type(values.dtype)
    lent: NDArray[Any] = np.ctypeslib.as_array((ctype * values.size).from_address(values.ctypes.data))
    return lent


def slice_sums(v: NDArray[Any], d: NDArray[Any], dim: int | None) -> NDArray[np.float64]:
    """Return the sums of v*v, v*d, d*d of each slice, and their powers of two: (5, slices)."""
    from nbopt.kernels.cpu import arrays, compile_array

    cut = as_slices(v.shape, dim)
    sums = np.ones((5, cut[1]))
    sums[:3] = 0.0
    if v.size:
        partial = sums_of(*cut)
        tiles = np.empty((3, partial.parts * partial.width))
        flat = (_lent(np.ascontiguousarray(a).reshape(-1)) for a in (v, d))
        compile_array(arrays.slice_sums, v.dtype)(*flat, *cut, partial.span, sums, tiles)
    return sums


def compose(v: NDArray[Any], g: NDArray[Any], dim: int | None) -> NDArray[Any]:
    """Return w = (g/|v|) v, with the bits that a step writes."""
    from nbopt.kernels.cpu import arrays, compile_array

    w = np.zeros(v.shape, v.dtype)
    if v.size:
        sums, cut = slice_sums(v, v, dim), as_slices(v.shape, dim)
        flat = (_lent(np.ascontiguousarray(a).reshape(-1)) for a in (v, g))
        compile_array(arrays.compose, v.dtype)(*flat, *cut, w.reshape(-1), sums)
    return w


def backward(
    v: NDArray[Any], g: NDArray[Any], d: NDArray[Any], dim: int | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return (dL/dv, dL/dg) from d = dL/dw."""
    from nbopt.kernels.cpu import arrays, compile_array

    dv, dg = np.zeros(v.shape, v.dtype), np.zeros(g.shape, g.dtype)
    if v.size:
        sums, cut = slice_sums(v, d, dim), as_slices(v.shape, dim)
        flat = (_lent(np.ascontiguousarray(a).reshape(-1)) for a in (v, g, d))
        compile_array(arrays.backward, v.dtype)(*flat, *cut, dv.reshape(-1), dg.reshape(-1), sums)
    return dv, dg


def initial_magnitude(v: NDArray[Any], dim: int | None, name: str) -> NDArray[Any]:
    """Return g = |v| in the dtype of v, refusing zero slices by name.

    Raises
    ------
    ParameterError
        If a slice of `v` is zero: weight norm has no direction there.
    """
    shape = magnitude_shape(v.shape, dim)
    if not v.size:
        return np.zeros(shape, v.dtype)
    norms = np.atleast_1d(np.asarray(norm(v, dim)))
    zero = np.flatnonzero(norms == 0.0)
    if zero.size:
        where = "the whole tensor" if dim is None else f"slice {int(zero[0])} along axis {dim}"
        raise ParameterError(
            f"parameter {name!r}: weight norm needs a direction, but {where} is zero "
            f"({zero.size} of {norms.size} slices); use an initializer that draws non-zero values, "
            f"or a plain ParamAttr"
        )
    with np.errstate(all="ignore"):
        g = norms.astype(v.dtype).reshape(shape)
    if not np.isfinite(g).all() and np.isfinite(v).all():
        raise ParameterError(f"parameter {name!r}: a norm of its slices exceeds the range of {v.dtype}")
    return g
