"""The guard against non-finite gradients: its modes, and the error for a step that it refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

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
    where = f" at {index}" if index else ""
    tale = f" ({row} refusals in a row)" if row > 1 else ""
    raise NonFiniteGradientError(
        f"step {step} was refused{tale}: {what}{where}. No parameter, velocity or count was changed; "
        'mend the gradient, lower the rate that led here, or choose nonfinite="skip" or "propagate"',
        name,
        index,
        step,
    )


def _first_nonfinite(part: Parameter) -> tuple[str, str, tuple[int, ...]]:
    """Name of the parameter, what is wrong with it, and the index of the first bad element."""
    owner = part._parent or part
    arrays = [("the gradient", owner, owner._current_grad())]
    if owner is not part:
        arrays += [("the value", moved, moved._current()) for moved in owner._moved]
    for what, parameter, array in arrays:
        bad = np.flatnonzero(~np.isfinite(array))
        if bad.size:
            index = tuple(int(i) for i in np.unravel_index(int(bad[0]), array.shape))
            return owner.name, f"{what} of {parameter.name!r} is {array[index]}", index
    return owner.name, f"the gradient of {owner.name!r} was not finite", ()
