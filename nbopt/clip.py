"""Gradient clipping: policies of an optimizer, callable on plain arrays too, and two in-place functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nbopt._calls import check_calls
from nbopt._validation import as_array, as_flag, as_name, as_number, nearest
from nbopt.errors import HyperparameterError, NonFiniteGradientError, ParameterError
from nbopt.kernels import scalars, tables, trees
from nbopt.norms import square_bins

if TYPE_CHECKING:
    from nbopt.buffer import ParameterBuffer
    from nbopt.parameter import Parameter

__all__ = [
    "ClipGradByGlobalNorm",
    "ClipGradByNorm",
    "ClipGradByValue",
    "GradientClip",
    "clip_grad_norm_",
    "clip_grad_value_",
]

DEFAULT_GROUP = "default_group"


class GradientClip:
    """Base class of the clips.

    A clip given to an optimizer acts on the gradient after rescale and before regularization. Called on
    plain arrays it returns new ones; there non-finite values propagate.
    """

    _kind: int

    @property
    def _columns(self) -> tuple[int, float, float, float]:
        """(kind, limit, low, high): the row of the clip table."""
        raise NotImplementedError

    def __call__(
        self, grads: Mapping[str, ArrayLike], need_clip: Mapping[str, bool] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Clip plain arrays.

        Parameters
        ----------
        grads : mapping of str to array_like
            float32 or float64 arrays by name; other real types are taken as float64.
        need_clip : mapping of str to bool, optional
            False leaves a gradient alone and out of the norm; missing names are True.

        Returns
        -------
        dict of str to numpy.ndarray
            New arrays, same names, order, shapes and dtypes.

        Examples
        --------
        >>> import numpy as np
        >>> import nbopt as nb
        >>> nb.ClipGradByValue(1.0)({"w": np.float32([3, -4]), "b": np.float32([9])}, need_clip={"b": False})
        {'w': array([ 1., -1.], dtype=float32), 'b': array([9.], dtype=float32)}
        """
        if not isinstance(grads, Mapping):
            raise TypeError(f"grads must be a mapping of names to arrays, got {type(grads).__name__}")
        if not isinstance(need_clip, Mapping | None):
            raise TypeError(f"need_clip must be a mapping of names to flags, got {type(need_clip).__name__}")
        arrays = {as_name(name): _as_gradient(name, grad) for name, grad in grads.items()}
        need = dict(need_clip or {})
        for name, flag in need.items():
            if name not in arrays:
                raise ParameterError(f"need_clip names {name!r}: {nearest(name, arrays)}")
            as_flag(flag, f"need_clip of {name!r}")
        clipped = self._clip({n: a for n, a in arrays.items() if need.get(n, True)})
        return {n: clipped[n] if n in clipped else a.copy() for n, a in arrays.items()}

    def _clip(self, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        raise NotImplementedError


@check_calls
@dataclass(frozen=True)
class ClipGradByValue(GradientClip):
    """Bring every element into ``[min, max]``; NaN stays NaN.

    Parameters
    ----------
    max : float
        Upper bound; >= 0 where `min` is not given.
    min : float, optional
        Lower bound, ``-max`` by default; at most `max`.

    Notes
    -----
    Semantics of Paddle's `ClipGradByValue`. With weight norm it acts on dL/dv and dL/dg.

    Examples
    --------
    >>> import nbopt as nb
    >>> nb.ClipGradByValue(1.0)({"w": [-3.0, 0.5]})
    {'w': array([-1. ,  0.5])}
    """

    max: float
    min: float | None = None

    _kind = tables.CLIP_VALUE

    def __post_init__(self) -> None:
        if self.min is None:
            high = as_number(self.max, "ClipGradByValue max", low=0.0, allow_inf=True)
            low = 0.0 - high  # never -0.0, which zeros would take the sign of
        else:
            high = as_number(self.max, "ClipGradByValue max", allow_inf=True)
            low = as_number(self.min, "ClipGradByValue min", allow_inf=True)
        if low > high:
            raise HyperparameterError(f"ClipGradByValue needs min <= max, got min={low!r} > max={high!r}")
        object.__setattr__(self, "max", high)
        object.__setattr__(self, "min", low)

    @property
    def _columns(self) -> tuple[int, float, float, float]:
        assert self.min is not None
        return self._kind, math.inf, self.min, self.max

    def _clip(self, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        assert self.min is not None
        return {name: _bounded(array, self.min, self.max) for name, array in arrays.items()}


@check_calls
@dataclass(frozen=True)
class ClipGradByNorm(GradientClip):
    """Scale each gradient on its own so that its Euclidean norm is at most `clip_norm`.

    Parameters
    ----------
    clip_norm : float
        The limit, >= 0. 0 gives zeros, infinity only measures.

    Notes
    -----
    At or below the limit a gradient is untouched, bit for bit; above it the factor is
    ``clip_norm * (1 - 2**-22) / norm`` (float64: ``1 - 2**-44``), without an epsilon, so that the clipped
    norm never exceeds the limit. Semantics of Paddle's `ClipGradByNorm` otherwise.

    Examples
    --------
    >>> import nbopt as nb
    >>> nb.ClipGradByNorm(2.5)({"w": [3.0, 4.0], "b": [2.0]})
    {'w': array([1.5, 2. ]), 'b': array([2.])}
    """

    clip_norm: float

    _kind = tables.CLIP_NORM

    def __post_init__(self) -> None:
        limit = as_number(self.clip_norm, f"{type(self).__name__} clip_norm", low=0.0, allow_inf=True)
        object.__setattr__(self, "clip_norm", limit)

    @property
    def _columns(self) -> tuple[int, float, float, float]:
        return self._kind, self.clip_norm, -math.inf, math.inf

    def _clip(self, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {name: _limited(a, _magnitude([a]), self.clip_norm) for name, a in arrays.items()}


@check_calls
@dataclass(frozen=True)
class ClipGradByGlobalNorm(GradientClip):
    """Scale all gradients together so that their common Euclidean norm is at most `clip_norm`.

    One object has one norm, over every parameter group that it is given to or that inherits it.

    Parameters
    ----------
    clip_norm : float
        The limit, >= 0. 0 gives zeros, infinity only measures.
    group_name : str
        Objects constructed with an explicit, equal name share one norm, and must have one limit. The
        default name joins nothing.
    auto_skip_clip : bool
        Accepted as in Paddle; gradients at or below the limit are never touched here.

    Notes
    -----
    The factor is that of `ClipGradByNorm`. Pascanu, Mikolov and Bengio (2013); semantics of Paddle's
    `ClipGradByGlobalNorm`, but Paddle takes one norm per group.

    Examples
    --------
    >>> import nbopt as nb
    >>> nb.ClipGradByGlobalNorm(6.5)({"w": [3.0, -4.0], "b": [12.0, 0.0]})
    {'w': array([ 1.5, -2. ]), 'b': array([6., 0.])}
    """

    clip_norm: float
    group_name: str = DEFAULT_GROUP
    auto_skip_clip: bool = False

    _kind = tables.CLIP_GLOBAL

    def __post_init__(self) -> None:
        limit = as_number(self.clip_norm, "ClipGradByGlobalNorm clip_norm", low=0.0, allow_inf=True)
        object.__setattr__(self, "clip_norm", limit)
        as_name(self.group_name, "ClipGradByGlobalNorm group_name")
        as_flag(self.auto_skip_clip, "ClipGradByGlobalNorm auto_skip_clip")

    @property
    def _columns(self) -> tuple[int, float, float, float]:
        return self._kind, self.clip_norm, -math.inf, math.inf

    def _clip(self, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        norm = _magnitude(arrays[name] for name in sorted(arrays))
        return {name: _limited(array, norm, self.clip_norm) for name, array in arrays.items()}


def as_clip(value: Any, name: str) -> GradientClip | None:
    """Return `value` as a clip or None."""
    if value is None or isinstance(value, GradientClip):
        return value
    raise TypeError(
        f"{name} must be None, ClipGradByValue, ClipGradByNorm or ClipGradByGlobalNorm, got "
        f"{type(value).__name__} {value!r}"
    )


def _bounded(array: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    with np.errstate(over="ignore"):  # a bound beyond the dtype bounds nothing
        bounds = array.dtype.type(low), array.dtype.type(high)
    return np.asarray(np.clip(array, *bounds))


def _as_gradient(name: str, grad: ArrayLike) -> NDArray[Any]:
    array = as_array(grad, f"gradient of {name!r}")
    if array.dtype.kind not in "iuf":
        raise TypeError(f"gradient of {name!r} must hold real numbers, got dtype {array.dtype}")
    if array.dtype not in (np.float32, np.float64) or not array.dtype.isnative:
        array = array.astype(np.float64)
    return array


def _magnitude(arrays: Iterable[NDArray[Any]]) -> tuple[float, float]:
    """Return (m, scale), the common norm being m * scale; sums join in the order given, pairwise."""
    sums = [square_bins(np.ascontiguousarray(array).reshape(-1)) for array in arrays]
    if not sums:
        return 0.0, 1.0
    bins = np.stack(sums, axis=1)
    low, middle, high = (float(trees.pairwise(bins, b, 0, 1, len(sums))) for b in range(tables.BINS))
    mantissa, scale = scalars.magnitude_of(low, middle, high)
    return float(mantissa), float(scale)


def _limited(array: NDArray[Any], norm: tuple[float, float], limit: float) -> NDArray[Any]:
    """Return `array` times what brings a norm (m, scale) to the limit."""
    shrink = scalars.storage_constants(array.dtype)["SHRINK"]
    coefficient, power = scalars.clip_coefficient(*norm, limit, shrink)
    return _scaled(array, coefficient, power)


def _scaled(array: NDArray[Any], coefficient: float, scale: float) -> NDArray[Any]:
    if coefficient == 1.0 and scale == 1.0:
        return array.copy()
    info = np.finfo(array.dtype)
    normal = coefficient == 0.0 or info.smallest_normal <= coefficient <= info.max
    with np.errstate(all="ignore"):
        if scale == 1.0 and normal:
            return np.asarray(scalars.scaled(array.dtype.type(coefficient), array))
        wide = scalars.scaled(coefficient, array.astype(np.float64) * scale)
        return np.asarray(wide.astype(array.dtype))


@check_calls
def clip_grad_norm_(
    params: ParameterBuffer | Parameter | Iterable[Parameter],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> float:
    """Scale the gradients of parameters in place so that their common norm is at most `max_norm`.

    Parameters
    ----------
    params : ParameterBuffer, Parameter or iterable of Parameter
        Each parameter counts once.
    max_norm : float
        The limit, >= 0; infinity only measures.
    norm_type : float
        p of the p-norm, > 0; infinity is the largest magnitude.
    error_if_nonfinite : bool
        Raise where the norm is NaN or infinite; else non-finite values propagate.

    Returns
    -------
    float
        The norm before clipping.

    Raises
    ------
    NonFiniteGradientError
        With `error_if_nonfinite`; nothing was changed.

    Notes
    -----
    As Paddle's and torch's function of the name, without their epsilon; p = 2 is the norm of `nbopt.norm`.

    Examples
    --------
    >>> import nbopt as nb
    >>> params = nb.ParameterBuffer.from_arrays({"w": [0.0, 0.0]})
    >>> params["w"].grad = [3.0, 4.0]
    >>> nb.clip_grad_norm_(params, 2.5)
    5.0
    >>> params["w"].grad
    array([1.5, 2. ])
    """
    limit = as_number(max_norm, "max_norm", low=0.0, allow_inf=True)
    order = as_number(norm_type, "norm_type", low=0.0, open_low=True, allow_inf=True)
    as_flag(error_if_nonfinite, "error_if_nonfinite")
    members = sorted(_parameters(params), key=lambda p: p.name)
    grads = [p._current_grad() for p in members]
    mantissa, scale = _magnitude(grads) if order == 2.0 else _general_norm(grads, order)
    total = mantissa * scale
    if error_if_nonfinite and not math.isfinite(mantissa):
        for parameter, grad in zip(members, grads, strict=True):
            bad = np.flatnonzero(~np.isfinite(grad))
            if bad.size:
                index = tuple(int(i) for i in np.unravel_index(int(bad[0]), grad.shape))
                raise NonFiniteGradientError(
                    f"the gradient of {parameter.name!r} is {grad[index]} at {index}; nothing was clipped",
                    parameter.name,
                    index,
                )
    _check_writable(members)
    if math.isinf(mantissa) and all(np.isfinite(grad).all() for grad in grads):
        raise HyperparameterError(f"the norm of order norm_type={order!r} exceeds float64; take a larger one")
    for parameter, grad in zip(members, grads, strict=True):
        parameter._memory.write(parameter.grad, _limited(grad, (mantissa, scale), limit))
    return float(total)


def _general_norm(grads: list[NDArray[Any]], order: float) -> tuple[float, float]:
    """Return (m, scale), the p-norm being m * scale, formed relative to the largest magnitude."""
    largest = float(np.max([np.max(np.abs(g)) for g in grads if g.size], initial=0.0))
    scale = scalars.UP if largest > 1e150 else scalars.DOWN if 0.0 < largest < 1e-150 else 1.0
    if order == math.inf or largest == 0.0 or not math.isfinite(largest):
        return largest, 1.0
    with np.errstate(all="ignore"):
        powers = (float(np.sum((np.abs(g.astype(np.float64)) / largest) ** order)) for g in grads)
        return float(largest / scale * np.float64(math.fsum(powers)) ** (1.0 / order)), scale


@check_calls
def clip_grad_value_(params: ParameterBuffer | Parameter | Iterable[Parameter], clip_value: float) -> None:
    """Bring every element of the gradients of parameters into ``[-clip_value, clip_value]``, in place.

    Parameters
    ----------
    params : ParameterBuffer, Parameter or iterable of Parameter
        Whose gradients.
    clip_value : float
        The bound, >= 0. NaN stays NaN.

    Examples
    --------
    >>> import nbopt as nb
    >>> params = nb.ParameterBuffer.from_arrays({"w": [0.0, 0.0]})
    >>> params["w"].grad = [3.0, -0.5]
    >>> nb.clip_grad_value_(params, 1.0)
    >>> params["w"].grad
    array([ 1. , -0.5])
    """
    bound = as_number(clip_value, "clip_value", low=0.0, allow_inf=True)
    members = _parameters(params)
    _check_writable(members)
    for parameter in members:
        parameter._memory.write(parameter.grad, _bounded(parameter._current_grad(), 0.0 - bound, bound))


def _check_writable(members: Iterable[Parameter]) -> None:
    for parameter in members:
        if parameter._parent is not None:
            raise ParameterError(f"the gradient of {parameter.name!r} is computed; clip that of its weight")


def _parameters(params: Any) -> list[Parameter]:
    from nbopt.chosen import as_parameters

    found = as_parameters(params)
    for buffer in dict.fromkeys(parameter._buffer for parameter in found):
        buffer.gather_grads()
    return found
