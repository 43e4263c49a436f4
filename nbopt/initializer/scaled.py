"""Draws whose spread follows from the shape: Xavier and Kaiming."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from nbopt._calls import check_calls
from nbopt._validation import as_number, nearest
from nbopt.errors import HyperparameterError, ParameterError
from nbopt.initializer.base import REACH, Initializer, number_or_none, set_fields

__all__ = ["KaimingNormal", "KaimingUniform", "XavierNormal", "XavierUniform", "calculate_gain"]


_GAINS = {"relu": math.sqrt(2.0), "tanh": 5.0 / 3.0, "selu": 0.75, "linear": 1.0, "sigmoid": 1.0}
for _n in "123":
    _GAINS |= dict.fromkeys((f"conv{_n}d", f"conv{_n}d_transpose", f"conv_transpose{_n}d"), 1.0)


def _check_known(value: Any, name: str, known: Collection[str]) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {value!r}; {nearest('', known)}")
    if value not in known:
        raise HyperparameterError(f"{name} {value!r} is unknown; {nearest(value, known)}")


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (fan_in, fan_out): a matrix is [in, out], a convolution kernel [out, in, *window]."""
    if len(shape) <= 2:
        return (shape[0], shape[-1]) if shape else (1, 1)
    window = math.prod(shape[2:])
    return shape[1] * window, shape[0] * window


def deviation(gain: float, fan: float) -> float:
    """Return the standard deviation ``|gain| / sqrt(fan)``."""
    std = abs(gain) / math.sqrt(fan)
    if math.isinf(REACH * std):
        raise ParameterError(f"gain {gain!r} with fan {fan!r} draws infinities; use a smaller gain")
    return std


@dataclass(frozen=True)
class _Xavier(Initializer):
    fan_in: float | None = None
    fan_out: float | None = None
    gain: float = 1.0

    def __post_init__(self) -> None:
        set_fields(self, fan_in=number_or_none(self.fan_in, "fan_in", low=0.0))
        set_fields(self, fan_out=number_or_none(self.fan_out, "fan_out", low=0.0))
        set_fields(self, gain=as_number(self.gain, "gain"))

    def _std(self, shape: tuple[int, ...]) -> float:
        given = (self.fan_in, self.fan_out)
        fans = [fan if own is None else own for fan, own in zip(_fans(shape), given, strict=True)]
        return deviation(self.gain, sum(fans) / 2.0) if all(fans) else 0.0


@check_calls
@dataclass(frozen=True)
class XavierUniform(_Xavier):
    """Uniform on +/- ``gain * sqrt(6 / (fan_in + fan_out))`` (Glorot and Bengio 2010).

    Keeps the variance of activations and gradients alike from layer to layer.

    Parameters
    ----------
    fan_in, fan_out : float, optional
        Numbers of connections, finite and >= 0; a 0 gives zeros, as in Paddle. By default from the
        shape: 1 and 1 for a scalar, n and n for a vector [n], the sizes of a matrix [in, out], and
        ``in * window`` and ``out * window`` for a convolution kernel [out, in, ...], where window
        is the product of the other sizes.
    gain : float, default 1.0
        Finite, its sign does not matter; see `calculate_gain`.

    Examples
    --------
    >>> import numpy as np
    >>> from nbopt.initializer import XavierUniform
    >>> w = XavierUniform().draw((300, 500), np.random.default_rng(0))
    >>> print(f"{abs(w).max():.4f}")
    0.0866
    """

    def draw(self, shape: tuple[int, ...], generator: Generator) -> NDArray[np.float64]:
        limit = math.sqrt(3.0) * self._std(shape)
        return generator.uniform(-limit, limit, shape)


@check_calls
@dataclass(frozen=True)
class XavierNormal(_Xavier):
    """Normal, mean 0, std ``gain * sqrt(2 / (fan_in + fan_out))`` (Glorot and Bengio 2010).

    Parameters
    ----------
    fan_in, fan_out, gain
        As in `XavierUniform`.

    Examples
    --------
    >>> import numpy as np
    >>> from nbopt.initializer import XavierNormal
    >>> w = XavierNormal().draw((200, 200), np.random.default_rng(0))
    >>> print(f"{w.std():.2f}")
    0.07
    """

    def draw(self, shape: tuple[int, ...], generator: Generator) -> NDArray[np.float64]:
        return generator.normal(0.0, self._std(shape), shape)


@dataclass(frozen=True)
class _Kaiming(Initializer):
    fan_in: float | None = None
    negative_slope: float | None = 0.0
    nonlinearity: str = "relu"
    mode: str = "fan_in"

    def __post_init__(self) -> None:
        set_fields(self, fan_in=number_or_none(self.fan_in, "fan_in", low=0.0))
        set_fields(self, negative_slope=number_or_none(self.negative_slope, "negative_slope"))
        calculate_gain(self.nonlinearity, self.negative_slope)
        _check_known(self.mode, "mode", ("fan_in", "fan_out"))
        if self.fan_in is not None and self.mode == "fan_out":
            raise HyperparameterError(f"fan_in must be None with mode 'fan_out', got {self.fan_in}")

    def _std(self, shape: tuple[int, ...]) -> float:
        if 0 in shape:
            return 0.0
        fan = _fans(shape)[self.mode == "fan_out"] if self.fan_in is None else self.fan_in
        if fan == 0:
            raise ParameterError(f"fan_in must be > 0 or None to fill shape {shape}, got {fan}")
        return deviation(calculate_gain(self.nonlinearity, self.negative_slope), fan)


@check_calls
@dataclass(frozen=True)
class KaimingUniform(_Kaiming):
    """Uniform on +/- ``gain * sqrt(3 / fan)`` (He et al. 2015).

    The gain is ``calculate_gain(nonlinearity, negative_slope)``. Keeps the variance of activations
    (mode "fan_in") or of gradients (mode "fan_out") from layer to layer.

    Parameters
    ----------
    fan_in : float, optional
        Number of connections, finite and >= 0, only with mode "fan_in"; by default from the shape
        as in `XavierUniform`. With 0, elements cannot be drawn (Paddle: ZeroDivisionError).
    negative_slope : float or None, default 0.0
        Of leaky_relu, finite; None is 0.01. Other nonlinearities do not use it.
    nonlinearity : str, default "relu"
        A name known to `calculate_gain`.
    mode : {"fan_in", "fan_out"}
        Which of the two fans of the shape is meant.

    Examples
    --------
    >>> import numpy as np
    >>> from nbopt.initializer import KaimingUniform
    >>> w = KaimingUniform().draw((300, 500), np.random.default_rng(0))
    >>> print(f"{abs(w).max():.4f}")
    0.1414
    """

    def draw(self, shape: tuple[int, ...], generator: Generator) -> NDArray[np.float64]:
        limit = math.sqrt(3.0) * self._std(shape)
        return generator.uniform(-limit, limit, shape)


@check_calls
@dataclass(frozen=True)
class KaimingNormal(_Kaiming):
    """Normal, mean 0, std ``gain / sqrt(fan)`` (He et al. 2015).

    Parameters
    ----------
    fan_in, negative_slope, nonlinearity, mode
        As in `KaimingUniform`, and so are the gain and the fan.

    Examples
    --------
    >>> import numpy as np
    >>> from nbopt.initializer import KaimingNormal
    >>> w = KaimingNormal().draw((200, 200), np.random.default_rng(0))
    >>> print(f"{w.std():.2f}")
    0.10
    """

    def draw(self, shape: tuple[int, ...], generator: Generator) -> NDArray[np.float64]:
        return generator.normal(0.0, self._std(shape), shape)


@check_calls
def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the recommended gain of a nonlinearity (He et al. 2015, Paddle).

    1 for linear, sigmoid and convolutions, 5/3 for tanh, 3/4 for selu, ``sqrt(2)`` for relu and
    ``sqrt(2 / (1 + param^2))`` for leaky_relu.

    Parameters
    ----------
    nonlinearity : str
        "linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu", "conv1d", "conv1d_transpose",
        "conv_transpose1d", or a 2d or 3d form; others are a `HyperparameterError`.
    param : float, optional
        The negative slope of leaky_relu, finite; None is 0.01. Others do not use it.

    Examples
    --------
    >>> from nbopt.initializer import calculate_gain
    >>> calculate_gain("leaky_relu", 1.0)
    1.0
    """
    slope = 0.01 if param is None else as_number(param, "param")
    gains = {**_GAINS, "leaky_relu": math.sqrt(2.0) / math.hypot(1.0, slope)}
    _check_known(nonlinearity, "nonlinearity", gains)
    return gains[nonlinearity]
