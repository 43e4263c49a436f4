"""Constants, and draws of a given spread."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from nbopt._calls import check_calls
from nbopt._validation import as_number
from nbopt.errors import HyperparameterError
from nbopt.initializer.base import REACH, Initializer, set_fields

__all__ = ["Constant", "Normal", "TruncatedNormal", "Uniform"]


@check_calls
@dataclass(frozen=True)
class Constant(Initializer):
    """Every element is `value`.

    Parameters
    ----------
    value : float, default 0.0
        Finite.

    Examples
    --------
    >>> import numpy as np
    >>> from nbopt.initializer import Constant
    >>> Constant(0.5).draw((3,), np.random.default_rng(0))
    array([0.5, 0.5, 0.5])
    """

    value: float = 0.0

    def __post_init__(self) -> None:
        set_fields(self, value=as_number(self.value, "value"))

    def draw(self, shape: tuple[int, ...], generator: Generator) -> NDArray[np.float64]:
        return np.full(shape, self.value)


@check_calls
@dataclass(frozen=True)
class Normal(Initializer):
    """The normal distribution N(mean, std^2).

    Parameters
    ----------
    mean, std : float, default 0.0 and 1.0
        Finite, ``std >= 0``.

    Examples
    --------
    >>> import numpy as np
    >>> from nbopt.initializer import Normal
    >>> w = Normal(std=0.02).draw((100, 100), np.random.default_rng(0))
    >>> print(f"{w.std():.3f}")
    0.020
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        set_fields(self, mean=as_number(self.mean, "mean"), std=as_number(self.std, "std", low=0.0))
        if math.isinf(abs(self.mean) + REACH * self.std):
            raise HyperparameterError(f"mean and std must draw finite numbers, got {self}")

    def draw(self, shape: tuple[int, ...], generator: Generator) -> NDArray[np.float64]:
        return generator.normal(self.mean, self.std, shape)


@check_calls
@dataclass(frozen=True)
class Uniform(Initializer):
    """The uniform distribution on [low, high].

    Parameters
    ----------
    low, high : float, default -1.0 and 1.0
        Finite, ``low <= high``; equal ends give a constant.

    Examples
    --------
    >>> import numpy as np
    >>> from nbopt.initializer import Uniform
    >>> w = Uniform(0.0, 0.5).draw((100,), np.random.default_rng(0))
    >>> bool(0.0 <= w.min() and w.max() <= 0.5)
    True
    """

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        set_fields(self, low=as_number(self.low, "low"), high=as_number(self.high, "high"))
        if self.high < self.low or math.isinf(self.high - self.low):
            raise HyperparameterError(f"high must be >= low and high - low finite, got {self}")

    def draw(self, shape: tuple[int, ...], generator: Generator) -> NDArray[np.float64]:
        return generator.uniform(self.low, self.high, shape)


@check_calls
@dataclass(frozen=True)
class TruncatedNormal(Initializer):
    """The normal distribution N(mean, std^2) restricted to the values [a, b].

    Drawn by the inverse of the distribution function, in logarithms, so that an interval far out in
    a tail is sampled as well as one around the mean.

    Parameters
    ----------
    mean, std : float, default 0.0 and 1.0
        Those before truncation, finite; `mean` may lie outside [a, b]; ``std >= 0``, and with 0
        every element is the point of [a, b] nearest `mean`.
    a, b : float, default -2.0 and 2.0
        Finite, ``a <= b``. As in Paddle these are values, not multiples of `std`.

    Examples
    --------
    >>> import numpy as np
    >>> from nbopt.initializer import TruncatedNormal
    >>> w = TruncatedNormal(std=0.02, a=-0.04, b=0.04).draw((1000,), np.random.default_rng(0))
    >>> bool(abs(w).max() <= 0.04)
    True
    """

    mean: float = 0.0
    std: float = 1.0
    a: float = -2.0
    b: float = 2.0

    def __post_init__(self) -> None:
        set_fields(self, mean=as_number(self.mean, "mean"), std=as_number(self.std, "std", low=0.0))
        set_fields(self, a=as_number(self.a, "a"), b=as_number(self.b, "b"))
        if self.b < self.a:
            raise HyperparameterError(f"b must be >= a, got {self}")

    def draw(self, shape: tuple[int, ...], generator: Generator) -> NDArray[np.float64]:
        from scipy.special import log_ndtr, ndtri_exp

        nearest_point = np.full(shape, min(max(self.mean, self.a), self.b))
        if self.std == 0.0:
            return nearest_point
        low, high, std = (self.a - self.mean) / self.std, (self.b - self.mean) / self.std, self.std
        if low + high > 0.0:  # reflect, because probabilities near 1 lose their digits
            low, high, std = -high, -low, -std
        log_high = float(log_ndtr(high))
        if math.isinf(log_high):  # beyond 1e154 deviations only the nearest point has weight
            return nearest_point
        if (high - low) * max(1.0, -low) < 1e-6:  # flat; inverting would only add rounding
            return generator.uniform(self.a, self.b, shape)
        # log of P(high) - u (P(high) - P(low)) without either probability
        log_p = log_high + np.log1p(generator.random(shape) * np.expm1(log_ndtr(low) - log_high))
        return np.asarray(np.clip(self.mean + std * ndtri_exp(log_p), self.a, self.b))
