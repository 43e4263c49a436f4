"""A step of Momentum on weight-normed parameters, and the plain NumPy loop that does the same step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

import nbopt as nb

from .common import DECAY, MOMENTUM, RATE

# name: (parameters, shape of each)
NORMED = {
    "1x512x512": (1, (512, 512)),
    "1x256x256x3x3": (1, (256, 256, 3, 3)),
    "100x64x64": (100, (64, 64)),
}
DIMS = [0, 1, None]


def limit(layout: str) -> float:
    """Return a limit of the global norm that leaves about a tenth of it."""
    count, shape = NORMED[layout]
    return 0.1 * math.sqrt(count * math.prod(shape))


def arrays(layout: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights and dL/dw, the same on every call."""
    count, shape = NORMED[layout]
    values, grads = np.random.default_rng(0).standard_normal((2, count, *shape)).astype("float32")
    return values, grads


def nbopt_weight_norm(layout: str, dim: int | None) -> nb.optimizer.Momentum:
    """Momentum with clip and L2 over a buffer of this layout, with its gradients written."""
    values, grads = arrays(layout)
    params = nb.ParameterBuffer(dtype="float32")
    for i, value in enumerate(values):
        attr = nb.WeightNormParamAttr(dim=dim)
        params.create_parameter(value.shape, name=f"p{i}", attr=attr).set_value(value)
    params.set_grads({f"p{i}": grad for i, grad in enumerate(grads)})
    clip = nb.ClipGradByGlobalNorm(limit(layout))
    return nb.optimizer.Momentum(RATE, MOMENTUM, parameters=params, weight_decay=DECAY, grad_clip=clip)


def numpy_weight_norm(layout: str, dim: int | None) -> NumPyWeightNorm:
    settings = {"rate": RATE, "momentum": MOMENTUM, "decay": DECAY, "limit": limit(layout)}
    return NumPyWeightNorm(*arrays(layout), dim, **settings)


class NumPyWeightNorm:
    """The loop that one writes without nbopt: v and g of ``w = g * v / |v|`` move in place.

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
