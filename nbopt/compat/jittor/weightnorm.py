"""Weight norm as in `jittor.weightnorm`, for any object with a NumPy array for an attribute.

Jittor's `dim` is the axis that is *reduced*: g has one number for each index along all the others. None is
the last axis. A norm below 1e-15 counts as 1e-15. The weight is composed whenever it is read, where Jittor
does so in the forward call.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

import nbopt as nb
from nbopt.compat._hook import Hook, as_dim, attach, detach, find, kind, refuse_array
from nbopt.errors import ParameterError

__all__ = ["WeightNorm", "remove_weight_norm", "weight_norm"]

Module = TypeVar("Module")

_SMALLEST = 1e-15


@dataclass(frozen=True)
class WeightNorm(Hook):
    """Weight norm of one attribute: `<name>` is composed of `<name>_g` and `<name>_v`.

    Parameters
    ----------
    name : str
        The attribute.
    dim : int or None
        The axis that is reduced, ``-rank <= dim < rank``; None is -1, the last one.

    Examples
    --------
    >>> import numpy as np
    >>> from nbopt.compat.jittor.weightnorm import WeightNorm
    >>> class Linear:
    ...     def __init__(self, inputs, outputs):
    ...         self.weight = np.random.default_rng(0).standard_normal((outputs, inputs))
    >>> linear = Linear(3, 4)
    >>> wn = WeightNorm("weight", -1)
    >>> wn.apply(linear, "weight", -1)
    WeightNorm(name='weight', dim=-1)
    >>> hasattr(linear, "weight_g")
    True
    >>> wn.remove(linear)
    >>> hasattr(linear, "weight_g")
    False
    """

    _slot: ClassVar[str | None] = "__fhook2__"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "dim", -1 if self.dim is None else as_dim(self.dim))

    def compute_weight(self, module: Any) -> NDArray[Any]:
        """Compose the weight of an object of its g and v.

        Parameters
        ----------
        module : object
            It has arrays `<name>_g` and `<name>_v`.

        Returns
        -------
        numpy.ndarray
            A new array.

        Examples
        --------
        >>> import types
        >>> import numpy as np
        >>> from nbopt.compat.jittor.weightnorm import WeightNorm
        >>> module = types.SimpleNamespace(w_g=np.array([[10.0]]), w_v=np.array([[3.0, 4.0]]))
        >>> WeightNorm("w", -1).compute_weight(module)
        array([[6., 8.]])
        """
        return self._compute(module)

    @staticmethod
    def apply(module: Any, name: str, dim: int | None) -> WeightNorm:
        """Put an attribute of an object under weight norm.

        Parameters
        ----------
        module : object
            It has the attribute, an array of float32 or float64, and no other weight norm.
        name, dim
            As in the class.

        Returns
        -------
        WeightNorm
            `module.__fhook2__`, which objects of one class may share.

        Raises
        ------
        AttributeError
            If the object has no such attribute.
        RuntimeError
            If the object has weight norm, of any attribute.
        ParameterError
            If `dim` is out of range.
        TypeError
            If the attribute or the object cannot have weight norm.

        Examples
        --------
        >>> import numpy as np
        >>> from nbopt.compat.jittor.weightnorm import WeightNorm
        >>> class Model:
        ...     def __init__(self):
        ...         self.weight = np.array([[3.0, 4.0]])
        >>> model = Model()
        >>> hook = WeightNorm.apply(model, "weight", -1)
        >>> model.__fhook2__ is hook, model.weight_g
        (True, array([[5.]]))
        """
        refuse_array(module)
        hook = WeightNorm(name, dim)
        if hasattr(module, "__fhook2__"):
            raise RuntimeError(
                f"cannot register two weight_norm hooks on one module: {kind(module)} has {module.__fhook2__}"
            )
        getattr(module, name)
        attach(module, hook)
        shown: WeightNorm = module.__fhook2__
        return shown

    def remove(self, module: Any) -> None:
        """Make a plain array of the attribute again; g, v and the hook are gone.

        Parameters
        ----------
        module : object

        Raises
        ------
        AttributeError
            If the attribute has no weight norm.

        Notes
        -----
        Jittor leaves `__fhook2__` behind, with which the next forward call fails.

        Examples
        --------
        >>> import numpy as np
        >>> from nbopt.compat.jittor.weightnorm import WeightNorm
        >>> class Model:
        ...     def __init__(self):
        ...         self.weight = np.array([[3.0, 4.0]])
        >>> model = Model()
        >>> hook = WeightNorm.apply(model, "weight", -1)
        >>> hook.remove(model)
        >>> vars(model)
        {'weight': array([[3., 4.]])}
        """
        if not _remove(module, self.name):
            raise AttributeError(
                f"{kind(module)} object has no attribute '{self.name}_g': {self.name!r} has no weight norm"
            )

    def _axis(self, v: NDArray[Any]) -> int:
        assert self.dim is not None
        if not -v.ndim <= self.dim < v.ndim:
            raise ParameterError(
                f"dim is the axis that is reduced, {-v.ndim} <= dim < {v.ndim} for {self.name} of shape "
                f"{v.shape}, got {self.dim}"
            )
        return self.dim % v.ndim

    def _rows(self, a: NDArray[Any], axis: int) -> NDArray[Any]:
        """Return a matrix whose rows lie along an axis."""
        moved = np.moveaxis(a, axis, -1)
        return moved.reshape(math.prod(moved.shape[:-1]), moved.shape[-1])

    def _norms(self, v: NDArray[Any]) -> NDArray[np.float64]:
        axis = self._axis(v)
        norms = np.asarray(nb.norm(self._rows(v, axis), 0))
        return norms.reshape([1 if i == axis else n for i, n in enumerate(v.shape)])

    def _scaled(self, v: NDArray[Any], g: NDArray[Any]) -> NDArray[Any]:
        axis = self._axis(v)
        moved = np.moveaxis(v, axis, -1)
        rows = nb.weight_norm(self._rows(v, axis), g.reshape(-1), 0)
        return np.ascontiguousarray(np.moveaxis(rows.reshape(moved.shape), -1, axis))

    def _divisors(self, norms: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.maximum(norms, _SMALLEST)

    _magnitudes = _divisors


def weight_norm(module: Module, name: str, dim: int | None) -> Module:
    """Compose an attribute of an object of a magnitude g and a direction v, ``w = g v / |v|``.

    `<name>_g` and `<name>_v` are new attributes of the object, which may be written, in place too. `<name>`
    is composed whenever it is read, and read-only; an array that is assigned to it becomes v, and g its norm.

    Parameters
    ----------
    module : object
        Any object that can take new attributes and has an array of float32 or float64 under `name`. It has
        room for one hook, `__fhook2__`.
    name : str
        The attribute.
    dim : int or None
        The axis that is reduced, ``-rank <= dim < rank``; None is -1, the last one.

    Returns
    -------
    object
        `module`.

    Raises
    ------
    AttributeError, RuntimeError, ParameterError, TypeError
        As in `WeightNorm.apply`.

    See Also
    --------
    nbopt.weight_norm_backward : The gradients of v and g.

    Examples
    --------
    >>> import numpy as np
    >>> from nbopt.compat.jittor.weightnorm import weight_norm
    >>> class Linear:
    ...     def __init__(self, inputs, outputs):
    ...         self.weight = np.random.default_rng(0).standard_normal((outputs, inputs))
    >>> model = weight_norm(Linear(20, 40), "weight", -1)
    >>> hasattr(model, "__fhook2__"), model.weight_g.shape
    (True, (40, 1))

    The attribute may have any name.

    >>> class Model:
    ...     def __init__(self, weight):
    ...         self.linear = np.array(weight)
    ...
    ...     def execute(self, x):
    ...         return x @ self.linear
    >>> model = weight_norm(Model([[3.0, 4.0], [0.0, 2.0]]), "linear", -1)
    >>> model.linear_g[...] = 1.0
    >>> model.execute(np.eye(2))
    array([[0.6, 0.8],
           [0. , 1. ]])
    """
    WeightNorm.apply(module, name, dim)
    return module


def remove_weight_norm(module: Module, name: str = "weight") -> Module:
    """Make a plain array of an attribute under weight norm.

    Parameters
    ----------
    module : object
    name : str
        The attribute.

    Returns
    -------
    object
        `module`, without `<name>_g`, `<name>_v` and `__fhook2__`, and of the class that it had.

    Raises
    ------
    ParameterError
        If the attribute has no weight norm.

    Notes
    -----
    Jittor removes the hook alone, whatever the name; g and v stay, without effect.

    Examples
    --------
    >>> import numpy as np
    >>> from nbopt.compat.jittor.weightnorm import remove_weight_norm, weight_norm
    >>> class Linear:
    ...     def __init__(self, inputs, outputs):
    ...         self.weight = np.random.default_rng(0).standard_normal((outputs, inputs))
    >>> model = weight_norm(Linear(20, 40), "weight", -1)
    >>> hasattr(remove_weight_norm(model), "__fhook2__")
    False
    >>> remove_weight_norm(model)
    Traceback (most recent call last):
        ...
    nbopt.errors.ParameterError: weight_norm of 'weight' not found in Linear
    """
    if not _remove(module, name):
        raise ParameterError(f"weight_norm of {name!r} not found in {kind(module)}")
    return module


def _remove(module: Any, name: str) -> bool:
    """Remove weight norm from an attribute, if it has any."""
    hook = find(module, name)
    if not isinstance(hook, WeightNorm):
        return False
    detach(module, hook)
    return True
