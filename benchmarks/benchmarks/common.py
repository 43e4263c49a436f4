"""The layouts that are timed, their policies, and the plain NumPy loop that does the same step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import nbopt as nb

# name: (parameters, elements in each)
LAYOUTS = {
    "10x100": (10, 100),
    "100x1000": (100, 1000),
    "465x2000": (465, 2000),  # every parameter with a policy of its own
    "1x1e6": (1, 1_000_000),
}
RATE, MOMENTUM, DECAY, LIMIT = 1e-3, 0.9, 1e-4, 1.0
# optimizer-wide L2 coefficient (None: no regularizer) and limit of the global norm (None: no clip)
SETTINGS = {"plain": (None, None), "clip+l2": (DECAY, LIMIT)}


@dataclass(frozen=True)
class Policy:
    """What one parameter asks for; None leaves the regularizer to the optimizer."""

    rate: float = 1.0
    l1: float | None = None
    l2: float | None = None
    need_clip: bool = True

    def attr(self) -> nb.ParamAttr:
        if self.l1 is not None:
            regularizer = nb.regularizer.L1Decay(self.l1)
        elif self.l2 is not None:
            regularizer = nb.regularizer.L2Decay(self.l2)
        else:
            regularizer = None
        return nb.ParamAttr(learning_rate=self.rate, regularizer=regularizer, need_clip=self.need_clip)


def policies(layout: str) -> list[Policy]:
    """One policy per parameter: no two alike in the layout of 465, the default elsewhere."""
    count = LAYOUTS[layout][0]
    if layout != "465x2000":
        return [Policy()] * count
    return [
        Policy(
            rate=0.5 + i / count,
            l1=1e-6 * i if i % 3 == 1 else None,
            l2=1e-6 * i if i % 3 == 2 else None,
            need_clip=i % 5 != 0,
        )
        for i in range(count)
    ]


def arrays(layout: str, dtype: str = "float32") -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return values and gradients, the same on every call."""
    count, size = LAYOUTS[layout]
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((2, count, size)).astype(dtype)
    return list(draws[0]), list(draws[1])


def nbopt_momentum(layout: str, setting: str, **options: object) -> nb.optimizer.Momentum:
    """Momentum over a buffer of this layout, with its gradients written."""
    l2, limit = SETTINGS[setting]
    values, grads = arrays(layout)
    params = nb.ParameterBuffer(dtype="float32")
    for i, policy in enumerate(policies(layout)):
        params.create_parameter(values[i].shape, name=f"p{i}", attr=policy.attr())
    for parameter, value, grad in zip(params.values(), values, grads, strict=True):
        parameter.set_value(value)
        parameter.grad = grad
    return nb.optimizer.Momentum(
        RATE,
        MOMENTUM,
        parameters=params,
        weight_decay=l2,
        grad_clip=None if limit is None else nb.ClipGradByGlobalNorm(limit),
        **options,
    )


class NumPyMomentum:
    """The loop that one writes without nbopt: lists of arrays, `out=` everywhere, BLAS norms."""

    def __init__(self, layout: str, setting: str) -> None:
        self.l2, self.limit = SETTINGS[setting]
        self.policies = policies(layout)
        self.values, self.grads = arrays(layout)
        self.velocities = [np.zeros_like(value) for value in self.values]
        self.work = np.empty_like(self.values[0])
        self.term = np.empty_like(self.values[0])

    def coefficient(self) -> float:
        if self.limit is None:
            return 1.0
        clipped = [g for g, own in zip(self.grads, self.policies, strict=True) if own.need_clip]
        norm = sum(float(np.dot(grad, grad)) for grad in clipped) ** 0.5
        return self.limit / norm if norm > self.limit else 1.0

    def step(self) -> None:
        coefficient = self.coefficient()
        work, term = self.work, self.term
        for own, value, grad, velocity in zip(
            self.policies, self.values, self.grads, self.velocities, strict=True
        ):
            np.multiply(grad, coefficient if own.need_clip else 1.0, out=work)
            l2 = self.l2 if own.l1 is None and own.l2 is None else own.l2
            if l2 is not None:
                np.multiply(value, l2, out=term)
                np.add(work, term, out=work)
            if own.l1 is not None:
                np.sign(value, out=term)
                np.multiply(term, own.l1, out=term)
                np.add(work, term, out=work)
            np.multiply(velocity, MOMENTUM, out=velocity)
            np.add(velocity, work, out=velocity)
            np.multiply(velocity, RATE * own.rate, out=work)
            np.subtract(value, work, out=value)
