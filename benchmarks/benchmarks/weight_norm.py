"""A step of Momentum on weight-normed arrays in plain NumPy, as one writes it without nbopt."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


class NumPyWeightNorm:
    """Moves v and g of ``w = g * v / |v|`` in place; backward, clip, L2, Momentum, and w again.

    Parameters
    ----------
    values, grads : sequence of numpy.ndarray
        The first w, and dL/dw of every step.
    dim : int or None
        The axis that keeps one norm per index; None is one norm over all elements.
    limit : float or None
        Of the norm over all dL/dv and dL/dg.
    """

    def __init__(
        self,
        values: Sequence[np.ndarray],
        grads: Sequence[np.ndarray],
        dim: int | None,
        *,
        rate: float,
        momentum: float,
        decay: float,
        limit: float | None,
    ) -> None:
        self.shape, self.whole = values[0].shape, dim is None
        kept = 0 if dim is None else dim
        outer = math.prod(self.shape[:kept])
        form = (1, 1, -1) if dim is None else (outer, self.shape[dim], -1)  # all but the kept axis is summed
        self.rate, self.momentum, self.decay, self.limit = rate, momentum, decay, limit
        self.v = [value.reshape(form).copy() for value in values]
        self.d = [grad.reshape(form) for grad in grads]
        self.w, self.dv = ([np.empty_like(v) for v in self.v] for _ in range(2))
        self.norms = [self.norm(v) for v in self.v]
        self.g = [norm.copy() for norm in self.norms]
        self.dg = [np.empty_like(g) for g in self.g]
        self.moved = [*self.v, *self.g]
        self.slopes = [*self.dv, *self.dg]
        self.velocities = [np.zeros_like(array) for array in self.moved]
        self.work = {array.shape: np.empty_like(array) for array in self.moved}
        self.recompose()

    def inner(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the sums of a * b over all axes but the kept one, in its shape."""
        if self.whole:
            return np.dot(a.ravel(), b.ravel()).reshape(1, 1, 1)
        return np.einsum("abc,abc->b", a, b)[:, None]

    def norm(self, v: np.ndarray) -> np.ndarray:
        return np.sqrt(self.inner(v, v))

    def backward(self) -> None:
        """Form dL/dv and dL/dg from dL/dw, with the norms of the last `recompose`."""
        for i, (v, d, dv, dg) in enumerate(zip(self.v, self.d, self.dv, self.dg, strict=True)):
            norm = self.norms[i]
            dg[:] = self.inner(v, d) / norm
            np.multiply(v, dg / norm, out=dv)
            np.subtract(d, dv, out=dv)
            np.multiply(dv, self.g[i] / norm, out=dv)

    def coefficient(self) -> float:
        if self.limit is None:
            return 1.0
        norm = math.sqrt(sum(float(np.dot(slope.ravel(), slope.ravel())) for slope in self.slopes))
        return self.limit / max(norm, self.limit)

    def recompose(self) -> None:
        for i, (v, w) in enumerate(zip(self.v, self.w, strict=True)):
            self.norms[i] = self.norm(v)
            np.multiply(v, self.g[i] / self.norms[i], out=w)

    def step(self) -> None:
        self.backward()
        factor = self.coefficient()
        for value, slope, velocity in zip(self.moved, self.slopes, self.velocities, strict=True):
            work = self.work[value.shape]
            np.multiply(slope, factor, out=slope)
            np.multiply(value, self.decay, out=work)
            np.add(slope, work, out=slope)
            np.multiply(velocity, self.momentum, out=velocity)
            np.add(velocity, slope, out=velocity)
            np.multiply(velocity, self.rate, out=work)
            np.subtract(value, work, out=value)
        self.recompose()

    def read(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Return w, v and g of every array; w and v in the shape that was given, g flat."""
        return [
            (w.reshape(self.shape), v.reshape(self.shape), g.ravel())
            for w, v, g in zip(self.w, self.v, self.g, strict=True)
        ]
