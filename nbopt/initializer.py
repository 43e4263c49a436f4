"""Initializers: what a parameter holds before its first step.

An initializer is an immutable value: equal arguments make equal initializers, and all randomness
comes from the generator handed to `draw`. Names, arguments and fans are those of Paddle 3.3.1
(``paddle.nn.initializer``), which checks arguments at their use or never; here they are checked at
once: a wrong type is a `TypeError`, a value out of its range a `HyperparameterError`, and a shape
that an initializer cannot fill a `ParameterError`, raised by `draw`.

Sources: Glorot and Bengio, AISTATS 2010 (Xavier); He, Zhang, Ren and Sun, ICCV 2015 (Kaiming);
Saxe, McClelland and Ganguli, ICLR 2014, and Mezzadri, Notices of the AMS 54(5), 2007 (Orthogonal);
Long, Shelhamer and Darrell, CVPR 2015 (Bilinear); Zagoruyko and Komodakis, 2017 (Dirac).
"""

from __future__ import annotations

import hashlib
import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence
from numpy.typing import ArrayLike, NDArray

from nbopt._calls import check_calls
from nbopt._validation import as_float_array, as_integer, as_number, nearest
from nbopt.errors import HyperparameterError, ParameterError

__all__ = [
    "Assign",
    "Bilinear",
    "Constant",
    "Dirac",
    "Initializer",
    "KaimingNormal",
    "KaimingUniform",
    "Normal",
    "Orthogonal",
    "TruncatedNormal",
    "Uniform",
    "XavierNormal",
    "XavierUniform",
    "calculate_gain",
    "set_global_initializer",
]

_GAINS = {"relu": math.sqrt(2.0), "tanh": 5.0 / 3.0, "selu": 0.75, "linear": 1.0, "sigmoid": 1.0}
for _n in "123":
    _GAINS |= dict.fromkeys((f"conv{_n}d", f"conv{_n}d_transpose", f"conv_transpose{_n}d"), 1.0)
_REACH = 40.0  # no normal deviate of a NumPy generator is larger


class Initializer(ABC):
    """Base class; a subclass with its own `draw` can be used wherever one of these can.

    Examples
    --------
    >>> import numpy as np
    >>> from nbopt.initializer import Initializer
    >>> class Ramp(Initializer):
    ...     def draw(self, shape, generator):
    ...         return np.linspace(0.0, 1.0, int(np.prod(shape))).reshape(shape)
    >>> Ramp().draw((3,), np.random.default_rng(0))
    array([0. , 0.5, 1. ])
    """

    @abstractmethod
    def draw(self, shape: tuple[int, ...], generator: Generator) -> NDArray[np.float64]:
        """Return a new float64 array of `shape`.

        Parameters
        ----------
        shape : tuple of int
            Sizes >= 0; ``()`` is a scalar parameter.
        generator : numpy.random.Generator
            The only source of randomness.

        Returns
        -------
        numpy.ndarray

        Raises
        ------
        ParameterError
            If this initializer cannot fill the shape.

        Examples
        --------
        >>> import numpy as np
        >>> from nbopt.initializer import Uniform
        >>> Uniform(2.0, 3.0).draw((2, 4), np.random.default_rng(0)).shape
        (2, 4)
        """


def generator_of(seed: int, name: str) -> Generator:
    """Return what the values of a parameter are drawn from: it depends on the seed and the name alone.

    Examples
    --------
    >>> from nbopt.initializer import generator_of
    >>> generator_of(0, "w").random() == generator_of(0, "w").random() != generator_of(0, "b").random()
    True
    """
    words = seed.to_bytes(4 * max(1, -(-seed.bit_length() // 32)), "little")
    digest = hashlib.sha256(name.encode()).digest()
    # As SeedSequence reads the list [seed, *digest], but ten times faster.
    entropy = [np.frombuffer(words, "<u4"), np.frombuffer(digest, np.uint8)]
    return Generator(PCG64(SeedSequence(np.concatenate(entropy, dtype=np.uint32))))


def _set(instance: Initializer, **fields: Any) -> None:
    # The only way in for the __post_init__ of a frozen dataclass.
    for name, value in fields.items():
        object.__setattr__(instance, name, value)


def _number_or_none(value: Any, name: str, low: float = -math.inf) -> float | None:
    return None if value is None else as_number(value, name, low=low)


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


def _deviation(gain: float, fan: float) -> float:
    """Return the standard deviation ``|gain| / sqrt(fan)``."""
    std = abs(gain) / math.sqrt(fan)
    if math.isinf(_REACH * std):
        raise ParameterError(f"gain {gain!r} with fan {fan!r} draws infinities; use a smaller gain")
    return std


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
        _set(self, value=as_number(self.value, "value"))

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
        _set(self, mean=as_number(self.mean, "mean"), std=as_number(self.std, "std", low=0.0))
        if math.isinf(abs(self.mean) + _REACH * self.std):
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
        _set(self, low=as_number(self.low, "low"), high=as_number(self.high, "high"))
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
        _set(self, mean=as_number(self.mean, "mean"), std=as_number(self.std, "std", low=0.0))
        _set(self, a=as_number(self.a, "a"), b=as_number(self.b, "b"))
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


@dataclass(frozen=True)
class _Xavier(Initializer):
    fan_in: float | None = None
    fan_out: float | None = None
    gain: float = 1.0

    def __post_init__(self) -> None:
        _set(self, fan_in=_number_or_none(self.fan_in, "fan_in", low=0.0))
        _set(self, fan_out=_number_or_none(self.fan_out, "fan_out", low=0.0))
        _set(self, gain=as_number(self.gain, "gain"))

    def _std(self, shape: tuple[int, ...]) -> float:
        given = (self.fan_in, self.fan_out)
        fans = [fan if own is None else own for fan, own in zip(_fans(shape), given, strict=True)]
        return _deviation(self.gain, sum(fans) / 2.0) if all(fans) else 0.0


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
        _set(self, fan_in=_number_or_none(self.fan_in, "fan_in", low=0.0))
        _set(self, negative_slope=_number_or_none(self.negative_slope, "negative_slope"))
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
        return _deviation(calculate_gain(self.nonlinearity, self.negative_slope), fan)


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
@dataclass(frozen=True, init=False, eq=False)
class Assign(Initializer):
    """The given values, whose shape must be the parameter's (Paddle takes any and keeps it).

    Parameters
    ----------
    value : array_like
        Real numbers, also non-finite ones; a scalar is refused, as `Constant` is meant. It is kept
        as a read-only float64 copy and compared by shape and values (NaN equals NaN).

    Examples
    --------
    >>> import numpy as np
    >>> from nbopt.initializer import Assign
    >>> Assign([1, 2, 3]).draw((3,), np.random.default_rng(0))
    array([1., 2., 3.])
    """

    value: NDArray[np.float64]

    def __init__(self, value: ArrayLike) -> None:
        array = as_float_array(value, "value", np.dtype(np.float64)).copy()
        if isinstance(value, numbers.Real):
            raise TypeError(f"value must be an array, got {value!r}; use Constant({value!r})")
        array.flags.writeable = False
        _set(self, value=array)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Assign):
            return NotImplemented
        return np.array_equal(self.value, other.value, equal_nan=True)

    def __hash__(self) -> int:
        # Equal arrays may differ in bits: the sign of zero, the payload of NaN.
        return hash((self.value.shape, (np.nan_to_num(self.value) + 0.0).tobytes()))

    def __reduce__(self) -> tuple[type[Assign], tuple[NDArray[np.float64]]]:
        return Assign, (self.value,)  # through __init__: arrays are writeable after unpickling

    def draw(self, shape: tuple[int, ...], generator: Generator) -> NDArray[np.float64]:
        if self.value.shape != tuple(shape):
            raise ParameterError(f"value of Assign has shape {self.value.shape}, not {shape}")
        return self.value.copy()


@check_calls
@dataclass(frozen=True)
class Bilinear(Initializer):
    """The kernel of bilinear upsampling by a transposed convolution (Long et al. 2015).

    Every plane of the kernel [a, b, k, k] is the outer product of the row ``1 - |x/f - c|`` with
    itself, x = 0, ..., k-1, ``f = ceil(k/2)``, ``c = (2f - 1 - f % 2) / (2f)``. To upsample f times
    take ``k = 2*f - f % 2`` and stride f; for other k the row is not symmetric. Paddle 3.3.1
    documents this kernel and makes a skewed one, because its row index keeps a fraction. A shape
    other than [a, b, k, k] is refused.

    Examples
    --------
    >>> import numpy as np
    >>> from nbopt.initializer import Bilinear
    >>> Bilinear().draw((1, 1, 4, 4), np.random.default_rng(0))[0, 0, 1]
    array([0.1875, 0.5625, 0.5625, 0.1875])
    """

    def draw(self, shape: tuple[int, ...], generator: Generator) -> NDArray[np.float64]:
        if len(shape) != 4 or shape[2] != shape[3]:
            raise ParameterError(f"Bilinear needs a shape [a, b, k, k], got {shape}")
        size = shape[3]
        factor = max((size + 1) // 2, 1)
        center = (2 * factor - 1 - factor % 2) / (2 * factor)
        row = 1.0 - np.abs(np.arange(size) / factor - center)
        return np.broadcast_to(np.outer(row, row), shape).copy()


@check_calls
@dataclass(frozen=True)
class Dirac(Initializer):
    """The identity of a convolution (Zagoruyko and Komodakis 2017), of rank 3, 4 or 5.

    With ``n = shape[0] / groups``, the elements ``(g*n + j, j, k//2, ...)`` with
    ``j < min(n, shape[1])`` are 1, so that each group g passes its channels on; the rest is 0.

    Parameters
    ----------
    groups : int, default 1
        At least 1; it must divide ``shape[0]``.

    Examples
    --------
    >>> import numpy as np
    >>> from nbopt.initializer import Dirac
    >>> Dirac(groups=2).draw((2, 3, 1), np.random.default_rng(0))[..., 0]
    array([[1., 0., 0.],
           [1., 0., 0.]])
    """

    groups: int = 1

    def __post_init__(self) -> None:
        _set(self, groups=as_integer(self.groups, "groups", low=1))

    def draw(self, shape: tuple[int, ...], generator: Generator) -> NDArray[np.float64]:
        if len(shape) not in (3, 4, 5):
            raise ParameterError(f"Dirac needs a shape of rank 3, 4 or 5, got {shape}")
        if shape[0] % self.groups:
            raise ParameterError(f"groups={self.groups} of Dirac must divide shape[0], got {shape}")
        kernel = np.zeros(shape)
        if kernel.size:
            per_group = shape[0] // self.groups
            first = np.arange(0, shape[0], per_group)[:, np.newaxis]
            channel = np.arange(min(per_group, shape[1]))
            at: tuple[Any, ...] = (first + channel, channel, *(size // 2 for size in shape[2:]))
            kernel[at] = 1.0
        return kernel


@check_calls
@dataclass(frozen=True)
class Orthogonal(Initializer):
    """A random orthogonal matrix of ``shape[0]`` rows times `gain` (Saxe et al. 2014).

    Of the QR factorisation of a Gaussian matrix, ``gain * Q * sign(diag R)``, which is uniform over
    the orthogonal matrices (Mezzadri 2007). The columns, or the rows if they are fewer, have length
    ``|gain|`` and are orthogonal. A shape of rank below 2 is refused.

    Parameters
    ----------
    gain : float, default 1.0
        Finite; see `calculate_gain`.

    Examples
    --------
    >>> import numpy as np
    >>> from nbopt.initializer import Orthogonal
    >>> w = Orthogonal(gain=2.0).draw((5, 3), np.random.default_rng(0))
    >>> np.allclose(w.T @ w, 4.0 * np.eye(3))
    True
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        _set(self, gain=as_number(self.gain, "gain"))

    def draw(self, shape: tuple[int, ...], generator: Generator) -> NDArray[np.float64]:
        if len(shape) < 2:
            raise ParameterError(f"Orthogonal needs a shape of rank >= 2, got {shape}")
        rows, columns = shape[0], math.prod(shape[1:])
        gaussian = generator.standard_normal((max(rows, columns), min(rows, columns)))
        q, r = np.linalg.qr(gaussian)
        q *= self.gain * np.copysign(1.0, np.diagonal(r))
        return np.ascontiguousarray(q.T if rows < columns else q).reshape(shape)


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


_global: tuple[Initializer | None, Initializer | None] = (None, None)  # of weights, of biases


@check_calls
def set_global_initializer(weight_init: Initializer | None, bias_init: Initializer | None = None) -> None:
    """Set the initializers of parameters created from now on whose attribute names none.

    They go before a `default_initializer`. As in Paddle every call sets both: leaving `bias_init`
    out clears it, and ``set_global_initializer(None)`` clears all.

    Parameters
    ----------
    weight_init, bias_init : Initializer, optional
        For weights, and for parameters created with ``is_bias=True``.

    Examples
    --------
    >>> import nbopt as nb
    >>> nb.initializer.set_global_initializer(nb.initializer.Constant(2.0))
    >>> nb.ParameterBuffer().create_parameter([2]).numpy()
    array([2., 2.], dtype=float32)
    >>> nb.initializer.set_global_initializer(None)
    """
    global _global
    given: dict[str, Any] = {"weight_init": weight_init, "bias_init": bias_init}
    for name, value in given.items():
        if value is not None and not isinstance(value, Initializer):
            legal = "an Initializer, such as Constant(0.0), or None"
            raise TypeError(f"{name} must be {legal}, got {value!r}")
    _global = (weight_init, bias_init)


def global_initializer(is_bias: bool) -> Initializer | None:
    """Return what `set_global_initializer` set for biases or for weights."""
    return _global[1] if is_bias else _global[0]
