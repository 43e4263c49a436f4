"""Weight norm as in `paddle.nn.utils`, for any object with a NumPy array for an attribute.

Paddle's `dim` is the axis that is *kept*; None and -1 are one norm over all elements, other negative numbers
count from the end. g is a vector, or has no axis for one norm over all. The first g is the root of |v|^2 +
1e-12, and v is divided by the larger of |v| and 1e-12, for one norm over all by |v| + 1e-12. The weight is
composed whenever it is read, where Paddle does so in the forward call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

import nbopt as nb
from nbopt.compat._hook import Hook, as_dim, as_weight, attach, detach, find, kind, refuse_array
from nbopt.errors import ParameterError

__all__ = ["remove_weight_norm", "weight_norm"]

Layer = TypeVar("Layer")

_EPSILON = 1e-12


def __getattr__(name: str) -> NoReturn:
    hint = f"; it is nbopt.{name}" if name in ("ParamAttr", "WeightNormParamAttr") else ""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")


@dataclass(frozen=True)
class _WeightNorm(Hook):
    """Weight norm of one attribute along `dim`, the axis that is kept or None."""

    def _norms(self, v: NDArray[Any]) -> NDArray[np.float64]:
        norms = np.asarray(nb.norm(v, self.dim))
        return norms.reshape([n if i == self.dim else 1 for i, n in enumerate(v.shape)])

    def _scaled(self, v: NDArray[Any], g: NDArray[Any]) -> NDArray[Any]:
        return nb.weight_norm(v, g, self.dim)

    def _divisors(self, norms: NDArray[np.float64]) -> NDArray[np.float64]:
        return norms + _EPSILON if self.dim is None else np.maximum(norms, _EPSILON)

    def _magnitudes(self, norms: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.hypot(norms, np.sqrt(_EPSILON))

    def _magnitude_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return () if self.dim is None else (shape[self.dim],)


def weight_norm(layer: Layer, name: str = "weight", dim: int | None = 0) -> Layer:
    """Compose an attribute of an object of a magnitude g and a direction v, ``w = g v / |v|``.

    `<name>_g` and `<name>_v` are new attributes of the object, which may be written, in place too. `<name>`
    is composed whenever it is read, and read-only; an array that is assigned to it becomes v, and g its norm.

    Parameters
    ----------
    layer : object
        Any object that can take new attributes and has an array of float32 or float64 under `name`.
    name : str
        The attribute.
    dim : int or None
        The axis that is kept. None and -1 are one norm over all elements; from -2 on, negative numbers count
        from the end.

    Returns
    -------
    object
        `layer`.

    Raises
    ------
    KeyError
        If the object has no such attribute.
    RuntimeError
        If the attribute has weight norm.
    ParameterError
        If `dim` is out of range.
    TypeError
        If the attribute or the object cannot have weight norm.

    See Also
    --------
    nbopt.weight_norm_backward : The gradients of v and g.

    Examples
    --------
    >>> import numpy as np
    >>> from nbopt.compat.paddle import weight_norm
    >>> class Conv2D:
    ...     def __init__(self, inputs, outputs, size):
    ...         self.weight = np.random.default_rng(0).standard_normal((outputs, inputs, size, size))
    >>> conv = weight_norm(Conv2D(3, 5, 3))
    >>> conv.weight_g.shape, conv.weight_v.shape
    ((5,), (5, 3, 3, 3))
    """
    refuse_array(layer)
    if not hasattr(layer, name):
        raise KeyError(f"{kind(layer)} has no attribute {name!r}")
    rank = as_weight(layer, name, getattr(layer, name)).ndim
    if dim is not None:
        dim = as_dim(dim)
        if not -rank <= dim < rank:
            raise ParameterError(
                f"dim is the axis that is kept, {-rank} <= dim < {rank} for {name} of {kind(layer)}, or "
                f"None; got {dim}"
            )
        dim = None if dim == -1 else dim % rank
    attach(layer, _WeightNorm(name, dim))
    return layer


def remove_weight_norm(layer: Layer, name: str = "weight") -> Layer:
    """Make a plain array of an attribute under weight norm.

    Parameters
    ----------
    layer : object
    name : str
        The attribute.

    Returns
    -------
    object
        `layer`, without `<name>_g` and `<name>_v`, and of the class that it had.

    Raises
    ------
    ParameterError
        If the attribute has no weight norm.

    Examples
    --------
    >>> import numpy as np
    >>> from nbopt.compat.paddle import remove_weight_norm, weight_norm
    >>> class Linear:
    ...     def __init__(self):
    ...         self.weight = np.array([[3.0, 4.0]], np.float32)
    >>> layer = weight_norm(Linear())
    >>> layer.weight_g *= 2
    >>> remove_weight_norm(layer).weight
    array([[6., 8.]], dtype=float32)
    >>> hasattr(layer, "weight_g")
    False
    """
    hook = find(layer, name)
    if not isinstance(hook, _WeightNorm):
        raise ParameterError(f"weight_norm of {name!r} not found in {kind(layer)}")
    detach(layer, hook)
    return layer
