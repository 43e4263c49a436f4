"""Exceptions of nbopt, and its warning.

Every exception derives from `NboptError` and from the builtin that a NumPy user would catch. A message
names the parameter, what was got, what is legal, and the mend.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "CheckpointError",
    "ConcurrencyError",
    "DeviceError",
    "FloatEnvironmentWarning",
    "HyperparameterError",
    "MissingPackageError",
    "NboptError",
    "NonFiniteGradientError",
    "ParameterError",
    "StateDictError",
]


class NboptError(Exception):
    """Base class of the errors of nbopt.

    Examples
    --------
    >>> import nbopt as nb
    >>> try:
    ...     nb.ParameterBuffer().create_parameter([-1], name="w")
    ... except nb.NboptError as error:
    ...     print(type(error).__name__)
    ParameterError
    """


class ParameterError(NboptError, ValueError):
    """A parameter, its shape, its values or its attributes cannot be used.

    Examples
    --------
    >>> import nbopt as nb
    >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
    >>> params["w"].value = [1.0, 2.0]
    Traceback (most recent call last):
        ...
    nbopt.errors.ParameterError: value of 'w' has shape (2,), but (1,) is needed
    """


class HyperparameterError(NboptError, ValueError):
    """A rate, a coefficient, a limit or another hyper-parameter is out of range.

    Examples
    --------
    >>> import nbopt as nb
    >>> nb.ClipGradByNorm(-1.0)
    Traceback (most recent call last):
        ...
    nbopt.errors.HyperparameterError: ClipGradByNorm clip_norm must be a number >= 0, got -1.0
    """


class StateDictError(NboptError, ValueError):
    """A state dictionary does not fit the optimizer; nothing was changed.

    Examples
    --------
    >>> import nbopt as nb
    >>> opt = nb.optimizer.SGD(0.1, nb.ParameterBuffer.from_arrays({"w": [1.0]}))
    >>> opt.set_state_dict({"w.step": -1}, strict=False)
    Traceback (most recent call last):
        ...
    nbopt.errors.StateDictError: the state dictionary does not fit this SGD; nothing was changed:
      w.step must be >= 0, got -1
    """


class CheckpointError(NboptError, ValueError):
    """A checkpoint file is damaged or does not fit; or something cannot be saved in one.

    Examples
    --------
    >>> import os, tempfile
    >>> import nbopt as nb
    >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0, 2.0]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "run.safetensors")
    ...     nb.save(path, params)
    ...     with open(path, "r+b") as file:
    ...         _ = file.seek(-1, os.SEEK_END)
    ...         _ = file.write(b"?")
    ...     nb.restore(path, params)
    Traceback (most recent call last):
        ...
    nbopt.errors.CheckpointError: checkpoint '...' cannot be restored; nothing was changed:
      ParameterBuffer: w: damaged (its digest differs)
    """


class NonFiniteGradientError(NboptError, FloatingPointError):
    """A gradient holds NaN or Inf; nothing was changed.

    Attributes
    ----------
    name : str
        The parameter.
    index : tuple of int
        The first bad element, in C order.
    step : int
        The number, counted from 1, of the step that was refused; 0 where there was no step.
    result : scipy.optimize.OptimizeResult or None
        What `nbopt.minimize` had found before.

    Examples
    --------
    >>> import nbopt as nb
    >>> opt = nb.optimizer.SGD(0.1, nb.ParameterBuffer.from_arrays({"w": [1.0, 2.0]}))
    >>> try:
    ...     opt.step({"w": [0.0, float("nan")]})
    ... except nb.errors.NonFiniteGradientError as error:
    ...     print(error.name, error.index, error.step)
    w (1,) 1
    """

    result: Any = None

    def __init__(self, message: str, name: str = "", index: tuple[int, ...] = (), step: int = 0):
        super().__init__(message)
        self.name = name
        self.index = index
        self.step = step

    def __reduce__(self) -> tuple[type, tuple[str, str, tuple[int, ...], int]]:
        return type(self), (str(self), self.name, self.index, self.step)


class ConcurrencyError(NboptError, RuntimeError):
    """Two threads stepped one optimizer at the same time.

    The call that raises has changed nothing.

    Examples
    --------
    >>> import nbopt as nb
    >>> from threading import Thread
    >>> opt = nb.optimizer.SGD(0.1, nb.ParameterBuffer.from_arrays({"w": [1.0]}))
    >>> refused = []
    >>> def run():
    ...     for _ in range(200):
    ...         try:
    ...             opt.step()
    ...         except nb.errors.ConcurrencyError as error:
    ...             refused.append(error)
    >>> threads = [Thread(target=run), Thread(target=run)]
    >>> for thread in threads:
    ...     thread.start()
    >>> for thread in threads:
    ...     thread.join()
    >>> opt.step_count + len(refused)
    400
    """


class DeviceError(NboptError, RuntimeError):
    """The device that was asked for cannot be used.

    Examples
    --------
    >>> import nbopt as nb
    >>> nb.ParameterBuffer(device="cuda")
    Traceback (most recent call last):
        ...
    nbopt.errors.DeviceError: device 'cuda' cannot be used: ...
    """


class MissingPackageError(NboptError, ImportError):
    """A package that only some uses need is not installed; the message names the extra that brings it.

    Examples
    --------
    >>> import nbopt as nb
    >>> try:
    ...     bar = nb.callbacks.ProgressBar(disable=True)
    ... except nb.errors.MissingPackageError as error:
    ...     print(error)
    """


class FloatEnvironmentWarning(RuntimeWarning):
    """A thread took subnormal numbers for zero, because another library told the processor to.

    `torch.set_flush_denormal` and libraries that were built for fast arithmetic set that for the thread they
    are called in, and for those that it starts. A step looks for it in every thread that works in it, and
    never changes it. The first step of a process that finds it warns; `Optimizer.check` warns each time that
    a step since its last call has found it.

    Examples
    --------
    >>> import warnings
    >>> import nbopt as nb
    >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
    >>> opt = nb.optimizer.SGD(0.1, params)
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", nb.errors.FloatEnvironmentWarning)
    ...     opt.step({"w": [1.0]})
    ...     opt.check()
    """
