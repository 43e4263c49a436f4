"""Weight norm of plain arrays, ``w = g v / |v|``, and the way back from dL/dw to v and g.

The module has another name than its function, so that importing the one does not hide the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nbopt import norms
from nbopt._calls import check_calls
from nbopt._validation import as_float_array, as_integer
from nbopt.attr import DIM_MEANINGS
from nbopt.errors import ParameterError
from nbopt.layout import magnitude_shape

__all__ = ["weight_norm", "weight_norm_backward"]


@check_calls
def weight_norm(v: ArrayLike, g: ArrayLike, dim: int | None) -> NDArray[Any]:
    """Compose a weight from a direction and a magnitude, ``w = g v / |v|``.

    Parameters
    ----------
    v : array_like
        The direction, of at least one axis. float32 and float64 are taken as they are, other real types as
        float64; arrays of both meet in float64.
    g : array_like
        The magnitude of each slice, of any sign: a vector of shape ``(v.shape[dim],)``, or with the rank of
        `v` and size 1 on the reduced axes. With ``dim=None`` also a number.
    dim : int or None
        The axis that is kept, ``0 <= dim < v.ndim``; None for one norm over all elements.

    Returns
    -------
    numpy.ndarray
        A new array in the shape of `v`. A slice of zeros gives zeros.

    Raises
    ------
    ParameterError
        If `dim` is out of range, or a shape does not fit.
    TypeError
        If something holds no real numbers, or `dim` is no integer.

    See Also
    --------
    weight_norm_backward : The gradients.
    WeightNormParamAttr : Weight norm of a parameter, inside the step of an optimizer.

    Notes
    -----
    Salimans and Kingma (2016). There is no epsilon. Norms are summed in float64 as those of `norm`, so they
    neither overflow nor underflow, and the bits are those that a step writes.

    Examples
    --------
    >>> import nbopt as nb
    >>> v = [[3.0, 4.0], [0.0, 2.0]]
    >>> nb.weight_norm(v, [10.0, 1.0], dim=0)
    array([[6., 8.],
           [0., 1.]])
    """
    dim, (v, g) = _checked("weight_norm", dim, v=v, g=g)
    return norms.compose(v, g, dim)


@check_calls
def weight_norm_backward(
    v: ArrayLike, g: ArrayLike, dw: ArrayLike, dim: int | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Take a gradient with respect to w back to v and g.

    Parameters
    ----------
    v, g, dim
        As in `weight_norm`.
    dw : array_like
        dL/dw, in the shape of `v`.

    Returns
    -------
    dv, dg : numpy.ndarray
        dL/dv and dL/dg in the shapes of `v` and `g`. Both are zero for a slice of zeros, which has no
        direction.

    Raises
    ------
    ParameterError, TypeError
        As in `weight_norm`.

    Notes
    -----
    ``dg = v.dw / |v|`` and ``dv = (g/|v|) (dw - dg v/|v|)`` for each slice (Salimans and Kingma 2016,
    equation 3), with the bits of `Parameter.grad`.

    Examples
    --------
    >>> import nbopt as nb
    >>> dv, dg = nb.weight_norm_backward([[3.0, 4.0]], [10.0], [[1.0, 0.0]], dim=0)
    >>> dv, dg
    (array([[ 1.28, -0.96]]), array([0.6]))
    """
    dim, (v, g, dw) = _checked("weight_norm_backward", dim, v=v, g=g, dw=dw)
    return norms.backward(v, g, dw, dim)


def _checked(label: str, dim: int | None, **given: ArrayLike) -> tuple[int | None, list[NDArray[Any]]]:
    """Return `dim` and the arrays in their common dtype, or say what is wrong with one of them."""
    if isinstance(given["g"], str):
        raise TypeError(
            f"{label} takes arrays v and g, got {type(given['v']).__name__} and {given['g']!r}; for an "
            "attribute of an object see nbopt.compat.paddle.weight_norm and "
            "nbopt.compat.jittor.weightnorm.weight_norm"
        )
    # A Python number takes the dtype of the arrays.
    single = all(type(a) in (int, float) or getattr(a, "dtype", None) == np.float32 for a in given.values())
    dtype = np.dtype(np.float32 if single else np.float64)
    arrays = {name: as_float_array(a, f"{name} of {label}", dtype) for name, a in given.items()}
    shape = arrays["v"].shape
    if not shape:
        raise ParameterError(f"v of {label} must have at least one axis, got a number")
    if dim is not None:
        dim = as_integer(dim, f"dim of {label}", error=ParameterError)
        if dim < 0:
            raise ParameterError(f"{label} got dim={dim}. {DIM_MEANINGS}")
        if dim >= len(shape):
            raise ParameterError(f"{label}: v of shape {shape} has no axis dim={dim}. {DIM_MEANINGS}")
    legal = [magnitude_shape(shape, dim), *([(), (1,)] if dim is None else [(shape[dim],)])]
    if arrays["g"].shape not in legal:
        text = " or ".join(map(str, dict.fromkeys(legal)))
        raise ParameterError(
            f"g of {label} must have shape {text} for v of shape {shape} and dim={dim}, "
            f"got {arrays['g'].shape}"
        )
    if "dw" in arrays and arrays["dw"].shape != shape:
        raise ParameterError(f"dw of {label} must have the shape of v, {shape}, got {arrays['dw'].shape}")
    return dim, list(arrays.values())
