"""The mean of the last values, over a window that grows with the number of updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nbopt._calls import check_calls
from nbopt._validation import as_integer, as_number
from nbopt.averaging.base import Average, as_members
from nbopt.errors import HyperparameterError, NboptError, StateDictError
from nbopt.kernels import averages

__all__ = ["ModelAverage"]

_COLUMNS = {
    "num_accumulates": averages.COUNT_WINDOW,
    "old_num_accumulates": averages.COUNT_LAST,
    "num_updates": averages.COUNT_UPDATES,
}


@check_calls
class ModelAverage(Average):
    """The mean of the values that parameters had after the last steps.

    Values are summed in windows. The average is the mean over the window that is open and the one before it,
    so it covers between one and two windows. A window ends when it holds `min_average_window` values, and
    either `max_average_window` or the share `average_window_rate` of all values so far.

    Parameters
    ----------
    average_window_rate : float
        Length of a window as a share of the number of updates; finite and >= 0.
    parameters : ParameterBuffer or list of Parameter
        What to average.
    min_average_window, max_average_window : int
        Bounds of the length of a window.
    name : str, optional
        Shown by ``repr``.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    HyperparameterError
        If a number is out of range, or the bounds are in the wrong order.
    ParameterError
        If there is no parameter, or they belong to several buffers.

    Notes
    -----
    The arguments and numbers of Paddle's ``incubate.ModelAverage``: after 16384 updates a sum moves on to a
    second one. Here each parameter's `do_model_average` is obeyed, also when it is set later; it is False by
    default with weight norm. Sums have the dtype of the parameters.

    Examples
    --------
    >>> import nbopt as nb
    >>> params = nb.ParameterBuffer.from_arrays({"w": [8.0]})
    >>> opt = nb.optimizer.SGD(0.25, parameters=params)
    >>> average = nb.ModelAverage(0.15, parameters=params, min_average_window=2, max_average_window=4)
    >>> for _ in range(3):
    ...     opt.step({"w": 2 * params["w"].value})
    ...     average.step()
    ...     print(params["w"].value)
    [4.]
    [2.]
    [1.]
    >>> with average.apply():
    ...     print(params["w"].value)
    [2.33333333]
    """

    _rows = ("sum_1", "sum_2", "sum_3")
    _takes = "step"

    def __init__(
        self,
        average_window_rate: float,
        parameters: Any = None,
        min_average_window: int = 10000,
        max_average_window: int = 10000,
        name: str | None = None,
    ):
        buffer, found = as_members(parameters, name, "ModelAverage")
        self._average_window_rate = as_number(
            average_window_rate, "ModelAverage average_window_rate", low=0.0
        )
        self._min_average_window = _as_count(min_average_window, "ModelAverage min_average_window")
        self._max_average_window = _as_count(max_average_window, "ModelAverage max_average_window")
        if self._min_average_window > self._max_average_window:
            raise HyperparameterError(
                f"ModelAverage min_average_window must be <= max_average_window, got "
                f"{self._min_average_window} > {self._max_average_window}; either is 10000 unless given"
            )
        self._setup(buffer, found, name)

    def step(self) -> None:
        """Take the values of the parameters in; call it after the step of the optimizer.

        Parameters that the last step of their optimizer left alone are left out: frozen ones, those without a
        gradient, and all of them where the step was refused. It does not matter whether gradients were
        cleared since. Before the first step of an optimizer, frozen and absent parameters are left out.

        Raises
        ------
        RuntimeError
            Between `apply` and `restore`.
        ConcurrencyError
            If another thread is stepping the parameters; nothing was taken in.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0], "b": [2.0]})
        >>> params.freeze("b")
        >>> average = nb.ModelAverage(0.5, parameters=params)
        >>> average.step()
        >>> state = average.state_dict()
        >>> state["w.num_updates"], state["b.num_updates"]
        (1, 0)
        """
        self._take(
            "add_values", self._average_window_rate, self._min_average_window, self._max_average_window
        )

    def _numbers(self, segment: int) -> dict[str, int | float]:
        return {name: int(self._counts[segment, column]) for name, column in _COLUMNS.items()}

    def _checked_number(self, name: str, value: Any, label: str) -> int:
        return _as_count(value, label, StateDictError, 2**53)  # so many are a float64

    def _contradictions(self, found: Mapping[str, Any]) -> list[str]:
        updates, window, last = (found[key] for key in ("num_updates", *list(_COLUMNS)[:2]))
        if updates < window + last or (updates > 0 and window + last == 0):
            counts = f"num_accumulates is {window} and old_num_accumulates {last}"
            return [f"num_updates: {updates} is no number of updates where {counts}"]
        empty = {"sum_1": window, "sum_2": window, "sum_3": last}
        return [
            f"{name}: is not zero, and no value is in it"
            for name, count in empty.items()
            if count == 0 and np.any(found[name])
        ]

    def _set_numbers(self, segment: int, numbers: Mapping[str, Any]) -> None:
        row = self._counts[segment]
        for name, value in numbers.items():
            row[_COLUMNS[name]] = value
        self._weights[segment] = float(row[averages.COUNT_WINDOW]) + float(row[averages.COUNT_LAST])

    def _config(self) -> dict[str, Any]:
        return {
            "average_window_rate": self._average_window_rate,
            "min_average_window": self._min_average_window,
            "max_average_window": self._max_average_window,
        }


def _as_count(
    value: Any, name: str, error: type[NboptError] = HyperparameterError, limit: int = 2**62
) -> int:
    count = as_integer(value, name, low=0, error=error)
    if count >= limit:  # two of them are added
        raise error(f"{name} must be < 2**{limit.bit_length() - 1}, got {count}")
    return count
