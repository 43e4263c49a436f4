"""The error for a step that a non-finite gradient had refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nbopt.errors import NonFiniteGradientError
from nbopt.kernels import tables as t

if TYPE_CHECKING:
    from nbopt.optimizer.base import Optimizer

__all__ = ["raise_found"]


def raise_found(opt: Optimizer) -> None:
    """Raise what a step has found and not yet raised."""
    counters = opt._tables.counters
    if not counters[t.STATUS]:
        return
    row = int(counters[t.CONSECUTIVE])
    counters[t.STATUS] = counters[t.CONSECUTIVE] = 0
    name, what, index = _first_nonfinite(opt, int(counters[t.BAD_SEGMENT]))
    step = int(counters[t.STEPS]) + 1
    where = f" at {index}" if index else ""
    tale = f" ({row} refusals in a row)" if row > 1 else ""
    raise NonFiniteGradientError(
        f"step {step} was refused{tale}: {what}{where}. No parameter, velocity or count was changed. "
        "Mend the gradient, or "
        'choose nonfinite="skip" or "propagate"',
        name,
        index,
        step,
    )


def _first_nonfinite(opt: Optimizer, segment: int) -> tuple[str, str, tuple[int, ...]]:
    """Name of the parameter, what is wrong with it, and the index of the first bad element."""
    part = opt._buffer[opt._tables.layout.names[segment]]
    owner = part._parent or part
    arrays = [("the gradient", owner, owner.grad)]
    if owner is not part:
        arrays += [("the value", moved, moved.value) for moved in owner._moved]
    for what, parameter, array in arrays:
        bad = np.flatnonzero(~np.isfinite(array))
        if bad.size:
            index = tuple(int(i) for i in np.unravel_index(int(bad[0]), array.shape))
            return owner.name, f"{what} of {parameter.name!r} is {array[index]}", index
    return owner.name, f"the gradient of {owner.name!r} was not finite", ()
