"""The loss as a function of the values of one parameter."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbopt.buffer import ParameterBuffer
from nbopt.errors import ParameterError
from nbopt.kernels import tables as t

__all__ = ["Losses", "rms"]

Vector = NDArray[np.float64]


class Losses:
    """The loss as a function of displacements; as a context it leaves the buffer as it found it."""

    def __init__(self, fun: Callable[..., Any], params: ParameterBuffer, args: tuple[Any, ...]):
        self._fun, self._params, self._args = fun, params, args
        self.calls = 0

    def __enter__(self) -> None:
        params, memory = self._params, self._params._memory
        storage = params._seal()
        self._saved = [memory.read(array).copy() for array in (storage.data, storage.grad)]
        self._present = np.array(storage.attributes[:, t.ATTRIBUTE_PRESENT])
        try:
            params.clear_grad()
            self.loss = self._called()
            if not math.isfinite(self.loss):
                raise ParameterError(f"fun must return a finite loss at the values to check, got {self.loss}")
            if not np.array_equal(memory.read(storage.data), self._saved[0], equal_nan=True):
                raise ParameterError("fun must not change the parameters: take opt.step() out of it")
            self._grads = memory.read(storage.grad).astype(np.float64)
            self.noise = abs(self._called() - self.loss)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        storage, memory = self._params._seal(), self._params._memory
        for array, saved in zip((storage.data, storage.grad), self._saved, strict=True):
            memory.write(array, saved)
        storage.attributes[:, t.ATTRIBUTE_PRESENT] = self._present

    def _called(self) -> float:
        self.calls += 1
        value = np.asarray(self._fun(self._params, *self._args))
        if value.size != 1 or value.dtype.kind not in "iuf":
            raise TypeError(f"fun must return the loss, a number, got {value!r}")
        return float(value.reshape(()))

    def of(self, name: str) -> tuple[NDArray[Any], Vector]:
        """Return values and written gradient of a parameter, 1-D."""
        where = self._params.slices[name]
        return self._saved[0][where], self._grads[where]

    def at(self, name: str, values: NDArray[Any]) -> float:
        """Return the loss with other values of one parameter."""
        where, memory = self._params.slices[name], self._params._memory
        flat = self._params.flat
        memory.write(flat[where], values)
        try:
            return self._called()
        finally:
            memory.write(flat[where], self._saved[0][where])

    @property
    def scale(self) -> float:
        """The size of all values, for a parameter that is zero."""
        return rms(self._params.to_vector()) or 1.0


def rms(values: NDArray[Any]) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(values.astype(np.float64))))) if values.size else 0.0
