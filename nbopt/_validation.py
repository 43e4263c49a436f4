"""Checks of what a user hands in: numbers, flags, names and arrays.

Out of range is a `ValueError` kind, a wrong type a `TypeError`; both say the name, what was got and what is
legal.
"""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from nbopt.errors import HyperparameterError, NboptError, ParameterError

__all__ = [
    "as_array",
    "as_flag",
    "as_float_array",
    "as_integer",
    "as_name",
    "as_number",
    "as_real",
    "as_returned_loss",
    "as_shape",
    "listed",
    "nearest",
]

SHOWN = 50  # names in a message


def as_number(
    value: Any,
    name: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
    allow_inf: bool = False,
    error: type[NboptError] = HyperparameterError,
) -> float:
    """Return `value` as a float, or say why it is none.

    Parameters
    ----------
    value : int, float, NumPy scalar or array of size 1
    name : str
        How the message calls it.
    low, high : float
        The legal range; `open_low` and `open_high` leave its ends out.
    allow_inf : bool
        Whether infinities inside the range are legal.
    error : type
        The class of the error for a value out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from nbopt._validation import as_number
    >>> as_number(np.float32(0.5), "momentum", low=0.0, high=1.0, open_high=True)
    0.5
    """
    if isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "iuf":
        value = value.reshape(())[()]
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (numbers.Real, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number, got {_show(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = -math.inf if value < 0 else math.inf
    inside = (low < number if open_low else low <= number) and (
        number < high if open_high else number <= high
    )
    if math.isnan(number) or not inside or (math.isinf(number) and not allow_inf):
        raise error(f"{name} must be {_range(low, high, open_low, open_high, allow_inf)}, got {number!r}")
    return number


def as_real(value: Any, demand: str) -> float:
    """Return a loss or another measure as a float: NaN and infinities are numbers too.

    Parameters
    ----------
    value : number, or array or tensor of size 1
    demand : str
        The message of the error, up to what was got.

    Examples
    --------
    >>> import numpy as np
    >>> from nbopt._validation import as_real
    >>> as_real(np.ones((1, 1)), "loss must be a number")
    1.0
    """
    try:
        array = np.asarray(value.item() if callable(getattr(value, "item", None)) else value)
    except (RuntimeError, TypeError, ValueError):  # several elements
        array = np.zeros(0)
    if array.size != 1 or array.dtype.kind not in "iuf" or np.ma.is_masked(value):
        raise TypeError(f"{demand}, got {_show(value)}")
    return float(array.reshape(()))


def as_returned_loss(value: Any) -> float:
    """Return what a function that writes gradients gave back.

    Examples
    --------
    >>> from nbopt._validation import as_returned_loss
    >>> as_returned_loss(2)
    2.0
    """
    if isinstance(value, tuple):
        raise TypeError(
            f"fun must return the loss alone, got a tuple of {len(value)}; gradients are written into the "
            "parameters, as in params['w'].grad = dw"
        )
    return as_real(value, "fun must return the loss, a number")


def _range(low: float, high: float, open_low: bool, open_high: bool, allow_inf: bool) -> str:
    kind = "a number" if allow_inf else "a finite number"
    parts = []
    if low > -math.inf:
        parts.append(f"{'>' if open_low else '>='} {low:g}")
    if high < math.inf:
        parts.append(f"{'<' if open_high else '<='} {high:g}")
    return " ".join([kind, " and ".join(parts)]).strip()


def as_integer(
    value: Any, name: str, *, low: int | None = None, error: type[NboptError] = HyperparameterError
) -> int:
    """Return `value` as an int (bool is none), at least `low`.

    Examples
    --------
    >>> from nbopt._validation import as_integer
    >>> as_integer(3, "groups", low=1)
    3
    """
    if isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "iu":
        value = value.reshape(())[()]
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {_show(value)}")
    number = int(value)
    if low is not None and number < low:
        raise error(f"{name} must be >= {low}, got {number}")
    return number


def as_flag(value: Any, name: str) -> bool:
    """Return `value` as a bool; 0 and 1 are numbers, not flags.

    Examples
    --------
    >>> from nbopt._validation import as_flag
    >>> as_flag(True, "need_clip")
    True
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {_show(value)}")
    return bool(value)


def as_name(value: Any, what: str = "name") -> str:
    """Return `value` as the name of a parameter: a string that is not empty.

    Examples
    --------
    >>> from nbopt._validation import as_name
    >>> as_name("fc.weight")
    'fc.weight'
    """
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a string, got {_show(value)}")
    if not value:
        raise ParameterError(f"{what} must not be empty; leave it None for an automatic name")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ParameterError(f"{what} {value!r} is no text: {error.reason}") from error
    return str(value)


def as_shape(value: Any, name: str) -> tuple[int, ...]:
    """Return `value` as a shape: an int or a sequence of ints >= 0.

    Examples
    --------
    >>> from nbopt._validation import as_shape
    >>> as_shape([2, 3], "w")
    (2, 3)
    """
    if isinstance(value, numbers.Integral):
        value = (value,)
    if isinstance(value, np.ndarray) and value.ndim != 1:
        raise TypeError(f"shape of parameter {name!r} must be a sequence of integers, got {_show(value)}")
    if isinstance(value, (str, bytes, set, frozenset, dict)) or not isinstance(value, Iterable):
        raise TypeError(f"shape of parameter {name!r} must be a sequence of integers, got {_show(value)}")
    shape = tuple(
        as_integer(size, f"shape of parameter {name!r}", low=0, error=ParameterError) for size in value
    )
    if len(shape) > 64 or math.prod(shape) >= 2**48:
        raise ParameterError(
            f"shape of parameter {name!r} must have at most 64 axes and fit a memory, got {_show(shape)}"
        )
    return shape


def as_array(value: Any, what: str, error: type[NboptError] = ParameterError) -> np.ndarray:
    """Return `value` as an array, of whatever it holds.

    Examples
    --------
    >>> from nbopt._validation import as_array
    >>> as_array([[1], [2, 3]], "value of 'w'")
    Traceback (most recent call last):
        ...
    nbopt.errors.ParameterError: value of 'w' is no array of numbers: setting an array element with ...
    """
    if isinstance(value, Mapping):
        raise TypeError(f"{what} must hold real numbers, got a mapping; for a tree, join names as in 'fc.w'")
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise error(f"{what} has masked elements; write array.filled(0.0), or what else they shall be")
    try:
        return np.asarray(value)
    except ValueError as cause:
        reason = str(cause).replace(". The", "; the").rstrip(".")
        raise error(f"{what} is no array of numbers: {reason}") from cause


def as_float_array(
    value: Any,
    what: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...] | None = None,
) -> np.ndarray:
    """Return `value` as an array of real numbers (neither booleans nor complex ones) in `dtype`.

    Parameters
    ----------
    value : array_like
    what : str
        How the message calls it.
    dtype : numpy.dtype
        float32 or float64.
    shape : tuple of int, optional
        The shape it must have.

    Returns
    -------
    numpy.ndarray
        Of `dtype`; a copy only where one is needed.

    Examples
    --------
    >>> import numpy as np
    >>> from nbopt._validation import as_float_array
    >>> as_float_array([1, 2], "value of 'w'", np.dtype("float32"), (2,))
    array([1., 2.], dtype=float32)
    """
    array = as_array(value, what)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{what} must hold real numbers, got dtype {array.dtype}")
    if shape is not None and array.shape != shape:
        raise ParameterError(f"{what} has shape {array.shape}, but {shape} is needed")
    if array.dtype == dtype:
        return array
    with np.errstate(all="ignore"):
        cast = array.astype(dtype)
    if np.isfinite(cast).all():
        return cast
    lost = np.isinf(cast) & ~np.isinf(array)
    if lost.any():
        at = np.unravel_index(int(np.argmax(lost)), lost.shape)
        raise ParameterError(
            f"{what} does not fit {dtype}: element {tuple(map(int, at))} is {float(array[at]):g}; "
            f"use a float64 buffer or scale it"
        )
    return cast


# What others call some arguments; of the names here, the first that is legal is meant.
_ALIASES = {
    "lr": ("learning_rate", "base_learning_rate", "max_learning_rate"),
    "l1": ("regularizer", "weight_decay"),
    "l2": ("regularizer", "weight_decay"),
    "wd": ("weight_decay", "regularizer"),
    "weight_decay": ("regularizer",),
    "params": ("parameters",),
    "nesterov": ("use_nesterov",),
    "eps": ("epsilon",),
    "max_norm": ("clip_norm",),
    "requires_grad": ("trainable",),
}


def nearest(key: str, legal: Iterable[str]) -> str:
    """Return a phrase that names the legal keys, the nearest first; it goes on after a colon or semicolon.

    Examples
    --------
    >>> from nbopt._validation import nearest
    >>> nearest("momentun", ["learning_rate", "momentum"])
    "did you mean 'momentum'? Legal keys: learning_rate, momentum"
    """
    names = list(legal)
    close = [name for name in _ALIASES.get(key, ()) if name in names]
    close = close or [name for name in names if key in name.split("_")]
    close = close or difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? Legal" if close else "legal"
    return f"{hint} keys: {listed(names)}"


def listed(names: Iterable[str]) -> str:
    """Return names with commas between them, the first of them where they are many.

    Examples
    --------
    >>> from nbopt._validation import listed
    >>> listed("abc"), len(listed(map(str, range(100_000))))
    ('a, b, c', 206)
    """
    names = list(names)
    rest = len(names) - SHOWN
    return ", ".join(names) if rest <= 0 else f"{', '.join(names[:SHOWN])} and {rest:,} others"


def _show(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    text = getattr(value, "__qualname__", None) or repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
