"""Exceptions of nbopt.

Every exception derives from `NboptError` and from the builtin that a NumPy user would catch. A message
names the parameter, what was got, what is legal, and the mend.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "ConcurrencyError",
    "DeviceError",
    "HyperparameterError",
    "NboptError",
    "NonFiniteGradientError",
    "ParameterError",
    "StateDictError",
]


class NboptError(Exception):
    """Base class of the errors of nbopt."""


class ParameterError(NboptError, ValueError):
    """A parameter, its shape, its values or its attributes cannot be used."""


class HyperparameterError(NboptError, ValueError):
    """A rate, a coefficient, a limit or another hyper-parameter is out of range."""


class StateDictError(NboptError, ValueError):
    """A state dictionary does not fit the optimizer; nothing was changed."""


class CheckpointError(NboptError, ValueError):
    """A checkpoint file is damaged or does not fit."""


class NonFiniteGradientError(NboptError, FloatingPointError):
    """A gradient holds NaN or Inf; nothing was changed.

    Attributes
    ----------
    name : str
        The parameter.
    index : tuple of int
        The first bad element, in C order.
    step : int
        The number, counted from 1, of the step that was refused.
    """

    def __init__(self, message: str, name: str = "", index: tuple[int, ...] = (), step: int = 0):
        super().__init__(message)
        self.name = name
        self.index = index
        self.step = step

    def __reduce__(self) -> tuple[type, tuple[str, str, tuple[int, ...], int]]:
        return type(self), (str(self), self.name, self.index, self.step)


class ConcurrencyError(NboptError, RuntimeError):
    """Two threads stepped one optimizer at the same time."""


class DeviceError(NboptError, RuntimeError):
    """The device that was asked for cannot be used."""
