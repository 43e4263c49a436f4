"""Values that know their shape: given ones, and kernels of a purpose."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from nbopt._calls import check_calls
from nbopt._validation import as_float_array, as_integer, as_number
from nbopt.errors import ParameterError
from nbopt.initializer.base import Initializer, set_fields

__all__ = ["Assign", "Bilinear", "Dirac", "Orthogonal"]


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
        set_fields(self, value=array)

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
        set_fields(self, groups=as_integer(self.groups, "groups", low=1))

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
        set_fields(self, gain=as_number(self.gain, "gain"))

    def draw(self, shape: tuple[int, ...], generator: Generator) -> NDArray[np.float64]:
        if len(shape) < 2:
            raise ParameterError(f"Orthogonal needs a shape of rank >= 2, got {shape}")
        rows, columns = shape[0], math.prod(shape[1:])
        gaussian = generator.standard_normal((max(rows, columns), min(rows, columns)))
        q, r = np.linalg.qr(gaussian)
        q *= self.gain * np.copysign(1.0, np.diagonal(r))
        return np.ascontiguousarray(q.T if rows < columns else q).reshape(shape)
