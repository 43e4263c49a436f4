"""The exponential average: recent values weigh more, and none is ever forgotten at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nbopt._calls import check_calls
from nbopt._validation import as_number
from nbopt.averaging.base import Average, as_members
from nbopt.errors import StateDictError

__all__ = ["ExponentialMovingAverage"]


@check_calls
class ExponentialMovingAverage(Average):
    """Averages whose weights fall by the factor `decay` with every update.

    An average starts at zero and becomes ``decay * average + (1 - decay) * value``. `apply` divides it by the
    weight of what was taken in, ``1 - decay**t`` after t updates, so that the start does not show.

    Parameters
    ----------
    decay : float
        In [0, 1); values of about ``1 / (1 - decay)`` updates count.
    parameters : ParameterBuffer or list of Parameter
        What to average.
    thres_steps : float or callable, optional
        Number of steps, or a function without arguments that returns it: `decay` is then at most
        ``(1 + thres_steps) / (10 + thres_steps)``, so that early averages forget faster. An array of one
        element is read at each update.
    name : str, optional
        Shown by ``repr``.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    HyperparameterError
        If a number is out of range, or becomes 1 in the dtype of the parameters.
    ParameterError
        If there is no parameter, or they belong to several buffers.

    Notes
    -----
    The arguments of Paddle's ``static.ExponentialMovingAverage``. Parameters with `do_model_average` take
    part in every update, frozen ones too, as running statistics are. With `thres_steps`, the weight is one
    minus the product of the decays that were used; Paddle takes a power of the last one.

    Examples
    --------
    >>> import nbopt as nb
    >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
    >>> average = nb.ExponentialMovingAverage(0.5, parameters=params)
    >>> for value in (1.0, 4.0):
    ...     params["w"].value = [value]
    ...     average.update()
    >>> with average.apply():
    ...     print(params["w"].value)
    [3.]
    """

    _rows = ("ema",)
    _takes = "update"

    def __init__(
        self,
        decay: float = 0.999,
        parameters: Any = None,
        thres_steps: float | Callable[[], float] | None = None,
        name: str | None = None,
    ):
        buffer, found = as_members(parameters, name, "ExponentialMovingAverage")
        label = "ExponentialMovingAverage decay"
        self._decay = as_number(decay, label, low=0.0, high=1.0, open_high=True)
        rounded = float(buffer.dtype.type(self._decay))
        as_number(rounded, f"{label}, {self._decay!r} rounded to {buffer.dtype},", high=1.0, open_high=True)
        self._thres_steps = thres_steps
        if thres_steps is not None and not callable(thres_steps):
            _as_steps(thres_steps)
        self._setup(buffer, found, name)

    def update(self) -> None:
        """Take the values of the parameters in; call it after the step of the optimizer.

        Raises
        ------
        RuntimeError
            Between `apply` and `restore`.
        ConcurrencyError
            If another thread is stepping the parameters; nothing was taken in.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [2.0]})
        >>> average = nb.ExponentialMovingAverage(0.75, parameters=params)
        >>> average.update()
        >>> state = average.state_dict()
        >>> state["w.ema"], state["w.ema_weight"]
        (array([0.5]), 0.25)
        """
        decay, steps = self._decay, self._thres_steps
        if steps is not None:
            count = _as_steps(steps() if callable(steps) else steps)
            decay = min(decay, (1.0 + count) / (10.0 + count))
        self._take("decay_values", float(self._buffer.dtype.type(decay)))

    def _numbers(self, segment: int) -> dict[str, int | float]:
        return {"ema_weight": float(self._weights[segment])}

    def _checked_number(self, name: str, value: Any, label: str) -> float:
        return as_number(value, label, low=0.0, high=1.0, error=StateDictError)

    def _contradictions(self, found: Mapping[str, Any]) -> list[str]:
        weight, least = found["ema_weight"], float(np.finfo(self._buffer.dtype).epsneg)
        if 0.0 < weight < least:  # the largest decay leaves that
            return [f"ema_weight: {weight!r} is less than the {least!r} that a single update has"]
        if weight == 0.0 and np.any(found["ema"]):
            return ["ema: is not zero, and ema_weight is 0"]
        return []

    def _set_numbers(self, segment: int, numbers: Mapping[str, Any]) -> None:
        self._weights[segment] = numbers["ema_weight"]

    def _config(self) -> dict[str, Any]:
        return {"decay": self._decay, "thres_steps": self._thres_steps}


def _as_steps(value: Any) -> float:
    return as_number(value, "ExponentialMovingAverage thres_steps", low=0.0)
