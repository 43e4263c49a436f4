"""The loss as a function of the values of one parameter."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbopt._validation import as_returned_loss
from nbopt.buffer import ParameterBuffer
from nbopt.errors import ParameterError
from nbopt.kernels import tables as t

__all__ = ["Losses", "rms"]

Vector = NDArray[np.float64]


class Losses:
    """The loss as a function of displacements; as a context it leaves the buffer as it found it.

    Attributes
    ----------
    calls : int
        Of the function, so far.
    loss : float
        At the values that were found.
    noise : float
        By how much two losses at these values differ.
    """

    def __init__(self, fun: Callable[..., Any], params: ParameterBuffer, args: tuple[Any, ...]):
        self._fun, self._params, self._args = fun, params, args
        self._storage, self._memory = params._seal(), params._memory
        self.calls = 0
        self._all_fit_float32 = True

    def __enter__(self) -> None:
        params, storage, memory = self._params, self._storage, self._memory
        params.gather_grads()
        self._saved = [memory.read(array).copy() for array in (storage.data, storage.grad)]
        self._present = np.array(storage.attributes[:, t.ATTRIBUTE_PRESENT])
        try:
            params.clear_grad()
            self.loss = self._called()
            if not math.isfinite(self.loss):
                raise ParameterError(f"fun must return a finite loss at the values to check, got {self.loss}")
            if not np.array_equal(memory.read(storage.data), self._saved[0], equal_nan=True):
                raise ParameterError("fun must not change the parameters: take opt.step() out of it")
            params.gather_grads()
            self._grads = memory.read(storage.grad).astype(np.float64)
            self.noise = abs(self._called() - self.loss)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        self._params.gather_grads()
        for array, saved in zip((self._storage.data, self._storage.grad), self._saved, strict=True):
            self._memory.write(array, saved)
        self._storage.attributes[:, t.ATTRIBUTE_PRESENT] = self._present

    def _called(self) -> float:
        self.calls += 1
        loss = as_returned_loss(self._fun(self._params, *self._args))
        with np.errstate(over="ignore", under="ignore"):
            self._all_fit_float32 &= float(np.float32(loss)) == loss or not math.isfinite(loss)
        return loss

    def of(self, name: str) -> tuple[NDArray[Any], Vector]:
        """Return values and written gradient of a parameter, 1-D."""
        where = self._params.slices[name]
        return self._saved[0][where], self._grads[where]

    def at(self, name: str, values: NDArray[Any]) -> float:
        """Return the loss with other values of one parameter."""
        where, flat = self._params.slices[name], self._params.flat
        self._memory.write(flat[where], values)
        try:
            return self._called()
        finally:
            self._memory.write(flat[where], self._saved[0][where])

    @property
    def precision(self) -> float:
        """The part of a loss that is rounding: losses that all fit float32 were formed in it."""
        return float(np.finfo(np.float32 if self._all_fit_float32 else self._params.dtype).eps)

    @property
    def scale(self) -> float:
        """The size of all values, for a parameter that is zero."""
        return rms(self._params.to_vector()) or 1.0


def rms(values: NDArray[Any]) -> float:
    """Return the root of the mean square, of values of any size."""
    wide = values.astype(np.float64)
    largest = float(np.max(np.abs(wide), initial=0.0))
    if not 0.0 < largest < math.inf:
        return largest
    return largest * math.sqrt(float(np.mean(np.square(wide / largest))))
