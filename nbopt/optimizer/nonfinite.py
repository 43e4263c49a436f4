"""The guard against non-finite gradients: its modes, and the error for a step that it refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nbopt.errors import HyperparameterError, NonFiniteGradientError
from nbopt.kernels import tables as t

if TYPE_CHECKING:
    from nbopt.buffer import ParameterBuffer
    from nbopt.optimizer.tables import Tables
    from nbopt.parameter import Parameter

__all__ = ["as_guard", "raise_found"]

_GUARDS = {"propagate": t.GUARD_PROPAGATE, "skip": t.GUARD_SKIP, "raise": t.GUARD_RAISE}


def as_guard(value: Any, name: str) -> int:
    """Return the mode that a word stands for."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {', '.join(_GUARDS)}, got {type(value).__name__} {value!r}")
    if value not in _GUARDS:
        raise HyperparameterError(f"{name} must be one of {', '.join(_GUARDS)}, got {value!r}")
    return _GUARDS[value]


def raise_found(tables: Tables, buffer: ParameterBuffer) -> None:
    """Raise what a step has found and not yet raised."""
    if not tables.counters[t.STATUS]:
        return
    counters = tables.counters[:]
    row = int(counters[t.CONSECUTIVE])
    tables.counters[[t.STATUS, t.CONSECUTIVE]] = 0
    name, what, index = _first_nonfinite(buffer[tables.layout.names[int(counters[t.BAD_SEGMENT])]])
    step = int(counters[t.STEPS]) + 1
    tale = f" ({row} refusals in a row)" if row > 1 else ""
    raise NonFiniteGradientError(
        f"step {step} was refused{tale}: {what}. No parameter, velocity or count was changed; "
        'mend the gradient, lower the rate that led here, or choose nonfinite="skip" or "propagate"',
        name,
        index,
        step,
    )


def _first_nonfinite(part: Parameter) -> tuple[str, str, tuple[int, ...]]:
    """Name of the parameter, what is wrong with it, and the index of the first bad element."""
    owner = part._parent or part
    grad, index = _bad_element(owner._current_grad())
    values = [(moved.name, *_bad_element(moved._current())) for moved in owner._moved]
    moved, value, where = next((one for one in values if one[1]), ("", "", ()))
    if value and not grad and owner is not part:  # then it is what made dL/dg and dL/dv so
        return owner.name, f"the value of {moved!r} is {value}", where
    what = f"the gradient of {owner.name!r} {f'is {grad}' if grad else 'was not finite'}"
    if value:
        what += f", and the value of {moved!r} is {value} already, as after an update that overflowed"
    return owner.name, what, index


def _bad_element(array: NDArray[Any]) -> tuple[str, tuple[int, ...]]:
    """The first element that is infinite or NaN, as words, and its index; no words where there is none."""
    bad = np.flatnonzero(~np.isfinite(array))
    if not bad.size:
        return "", ()
    index = tuple(int(i) for i in np.unravel_index(int(bad[0]), array.shape))
    return f"{array[index]} at {index}" if index else f"{array[index]}", index
