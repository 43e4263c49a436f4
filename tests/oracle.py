"""The oracle: what one optimizer step means, as the plainest loop over parameters.

It shares nothing with the package. Arithmetic runs in the dtype of the values it is given (float64
for a reference, float32 to imitate storage); numbers are Python floats, rounded once by NumPy.

One step: rescale, weight-norm backward, clip, regularize, rate x multipliers, update, recompose.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

# Above its limit a gradient is scaled to limit * (1 - margin): rounding cannot lift it over again.
MARGIN = {np.dtype("float32"): 2.0**-22, np.dtype("float64"): 2.0**-44}


class Decay(NamedTuple):
    """A regularizer: adds `l1 * sign(p) + l2 * p` to the clipped gradient; `Decay()` adds none."""

    l1: float = 0.0
    l2: float = 0.0


@dataclass(eq=False)
class Clip:
    """A clip object; a global norm is taken over all groups that hold it, or its group name."""

    kind: str  # "value", "norm" or "global"
    limit: float
    low: float | None = None  # "value": the lower bound; None is -limit
    group_name: str | None = None  # "global": clips with an equal name are one

    @property
    def key(self) -> object:
        return id(self) if self.group_name is None else self.group_name


@dataclass(eq=False)
class Param:
    """One array that the optimizer moves. `regularizer=None` inherits; `Decay()` means none."""

    value: np.ndarray
    learning_rate: float = 1.0
    regularizer: Decay | None = None
    need_clip: bool = True
    trainable: bool = True
    decays: bool = True  # AdamW: takes part in the decoupled decay
    state: dict[str, np.ndarray] = field(default_factory=dict)
    steps: int = 0


# --- norms and clips ------------------------------------------------------------------------------


def norm(arrays: Iterable[np.ndarray]) -> np.longdouble:
    """The norm of all elements together, scaled by the largest so that nothing overflows."""
    x = np.concatenate([np.ravel(a) for a in arrays]).astype(np.longdouble)
    largest = np.max(np.abs(x), initial=0.0)
    if largest == 0 or not np.isfinite(largest):
        return largest
    return largest * np.sqrt(np.sum((x / largest) ** 2))


def coefficient(total: np.longdouble, limit: float, margin: float) -> float:
    """The factor that brings a norm to its limit; exactly 1 at or below it, NaN for a NaN norm."""
    if total <= limit or math.isinf(limit):
        return 1.0
    return float(limit * (1.0 - margin) / total)


def scale(grad: np.ndarray, factor: float) -> np.ndarray:
    if factor == 1.0:
        return grad.copy()
    if factor < np.finfo(grad.dtype).tiny:
        return (grad.astype(np.float64) * factor).astype(grad.dtype)
    return grad * factor


def clip_grads(
    clip: Clip,
    grads: Mapping[str, np.ndarray],
    need_clip: Mapping[str, bool] | None = None,
    storage: Any = None,
) -> dict[str, np.ndarray]:
    """New, clipped arrays; those whose `need_clip` is False enter no norm and stay as they are.

    `storage` is the dtype whose margin applies; by default that of each array.
    """
    result = {name: grad.copy() for name, grad in grads.items()}
    names = [name for name in grads if (need_clip or {}).get(name, True)]
    together = norm(grads[name] for name in names) if names else 0.0
    with np.errstate(invalid="ignore"):  # 0 * inf is the NaN that we mean
        for name in names:
            grad = grads[name]
            if clip.kind == "value":
                low = -clip.limit if clip.low is None else clip.low
                result[name] = np.clip(grad, low, clip.limit)
            else:
                total = together if clip.kind == "global" else norm([grad])
                margin = MARGIN[np.dtype(storage or grad.dtype)]
                result[name] = scale(grad, coefficient(total, clip.limit, margin))
    return result


# --- weight norm: w = g * v / |v|; one norm per index of the kept axis `dim`, or a single one -----


def slice_norm(v: np.ndarray, dim: int | None) -> np.ndarray:
    """|v| with the rank kept: size 1 on every axis except `dim`."""
    axes = tuple(axis for axis in range(v.ndim) if axis != dim)
    return np.sqrt(np.sum(np.square(v.astype(np.float64)), axis=axes, keepdims=True))


def _inverse(n: np.ndarray) -> np.ndarray:
    return np.divide(1.0, n, out=np.zeros_like(n), where=n > 0)  # a zero slice: w = dv = dg = 0


def compose(v: np.ndarray, g: np.ndarray, dim: int | None) -> np.ndarray:
    return (v * (g * _inverse(slice_norm(v, dim)))).astype(v.dtype)


def weight_norm_backward(
    v: np.ndarray, g: np.ndarray, dw: np.ndarray, dim: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """(dv, dg) from dL/dw."""
    axes = tuple(axis for axis in range(v.ndim) if axis != dim)
    inverse = _inverse(slice_norm(v, dim))
    unit = v * inverse
    dg = np.sum(dw * unit, axis=axes, keepdims=True)
    dv = g * inverse * (dw - dg * unit)
    return dv.astype(v.dtype), dg.astype(v.dtype)


def weight_norm(name: str, w: np.ndarray, dim: int | None, **attr: Any) -> dict[str, Param]:
    """The two parameters behind a weight: v = w and g = |w|; both carry the attribute."""
    g = slice_norm(w, dim).astype(w.dtype)
    return {f"{name}_g": Param(g, **attr), f"{name}_v": Param(w.copy(), **attr)}


# --- update rules: the new value of a parameter; its state is written in place --------------------


def sgd(param: Param, grad: np.ndarray, lr: float) -> np.ndarray:
    return param.value - lr * grad


def momentum(
    param: Param, grad: np.ndarray, lr: float, momentum: float = 0.9, use_nesterov: bool = False
) -> np.ndarray:
    velocity = momentum * param.state.get("velocity", np.zeros_like(grad)) + grad
    param.state["velocity"] = velocity
    return param.value - lr * (grad + momentum * velocity if use_nesterov else velocity)


def adam(
    param: Param,
    grad: np.ndarray,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    amsgrad: bool = False,
) -> np.ndarray:
    state, zeros = param.state, np.zeros_like(grad)
    state["moment1"] = beta1 * state.get("moment1", zeros) + (1 - beta1) * grad
    state["moment2"] = second = beta2 * state.get("moment2", zeros) + (1 - beta2) * grad**2
    if amsgrad:
        state["moment2_max"] = second = np.maximum(state.get("moment2_max", zeros), second)
    mean, square = state["moment1"] / (1 - beta1**param.steps), second / (1 - beta2**param.steps)
    return param.value - lr * mean / (np.sqrt(square) + epsilon)


def adamw(param: Param, grad: np.ndarray, lr: float, weight_decay: float = 0.0, **hyper: Any) -> np.ndarray:
    """The regularizer of a parameter is in `grad`, taken from its value before this decay."""
    if param.decays:
        param.value = param.value * (1 - lr * (weight_decay or 0.0))
    return adam(param, grad, lr, **hyper)


RULES = {"SGD": sgd, "Momentum": momentum, "Adam": adam, "AdamW": adamw}
POLICY = {"params", "learning_rate", "weight_decay", "grad_clip"}  # other keys belong to the rule


# --- the step -------------------------------------------------------------------------------------


class Oracle:
    """An optimizer over named `Param`s.

    `composed` maps a weight-norm weight to its dim: its gradient comes under its own name, its
    parameters are `<name>_g` and `<name>_v`. `groups` are dicts as in the package, with `Decay` and
    `Clip` as values; a key that is present wins, even when None. `storage` is the dtype of the
    imitated buffer, for the margin of the clips.
    """

    def __init__(
        self,
        rule: str,
        params: dict[str, Param],
        learning_rate: float,
        *,
        composed: Mapping[str, int | None] | None = None,
        weight_decay: Decay | float | None = None,
        grad_clip: Clip | None = None,
        rescale_grad: float = 1.0,
        groups: list[dict[str, Any]] | None = None,
        storage: Any = None,
        **hyper: float,
    ):
        self.params = params
        self.learning_rate = learning_rate
        self.composed = dict(composed or {})
        self._rule = RULES[rule]
        # A rule that takes weight_decay applies it by itself; it is a number then.
        self._decoupled = "weight_decay" in inspect.signature(self._rule).parameters
        self._rescale = rescale_grad
        self._storage = storage
        if self._rule in (adam, adamw):
            hyper = {"beta1": 0.9, "beta2": 0.999, **hyper}
        inherited = {"learning_rate": 1.0, "weight_decay": weight_decay, "grad_clip": grad_clip}
        self._policy = {}  # parameter -> what its group says, completed by the optimizer
        for group in groups or [{"params": list(params)}]:
            for name in group["params"]:
                leaves = [f"{name}_g", f"{name}_v"] if name in self.composed else [name]
                self._policy |= dict.fromkeys(leaves, inherited | hyper | group)

    def value(self, name: str) -> np.ndarray:
        """What the model reads."""
        if name not in self.composed:
            return self.params[name].value
        v, g = self.params[f"{name}_v"].value, self.params[f"{name}_g"].value
        return compose(v, g, self.composed[name])

    def step(self, grads: Mapping[str, np.ndarray | None]) -> None:
        """One update; where a gradient is None or not named, the parameter is left alone."""
        for name, grad in self._clip(self._backward(grads)).items():
            param, policy = self.params[name], self._policy[name]
            decay = param.regularizer
            if decay is None:
                decay = (None if self._decoupled else policy["weight_decay"]) or Decay()
            grad = grad + decay.l1 * np.sign(param.value) + decay.l2 * param.value
            rate = float(self.learning_rate) * policy["learning_rate"] * param.learning_rate
            own = {"weight_decay"} if self._decoupled else set()
            hyper = {key: value for key, value in policy.items() if key not in POLICY - own}
            for key in hyper.keys() & {"beta1", "beta2"}:  # their distance to 1 counts, as it is stored
                hyper[key] = float(np.dtype(self._storage or param.value.dtype).type(hyper[key]))
            param.steps += 1
            param.value = self._rule(param, grad, rate, **hyper)

    def _backward(self, grads: Mapping[str, np.ndarray | None]) -> dict[str, np.ndarray]:
        """The rescaled gradient of every parameter that moves in this step."""
        leaves = {}
        for name, grad in grads.items():
            if grad is None:
                continue
            target = self.params[f"{name}_v" if name in self.composed else name].value
            leaves[name] = self._rescale * grad.astype(target.dtype)
            if name in self.composed:
                v, g = self.params[f"{name}_v"].value, self.params[f"{name}_g"].value
                dv, dg = weight_norm_backward(v, g, leaves.pop(name), self.composed[name])
                leaves |= {f"{name}_g": dg, f"{name}_v": dv}
        moving = [name for name in leaves if name in self._policy and self.params[name].trainable]
        return {name: leaves[name] for name in moving}

    def _clip(self, grads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        result = dict(grads)
        clips = {name: self._policy[name]["grad_clip"] for name in grads}
        for clip in {clip.key: clip for clip in clips.values() if clip}.values():
            members = {n: g for n, g in grads.items() if clips[n] and clips[n].key == clip.key}
            need_clip = {name: self.params[name].need_clip for name in members}
            result |= clip_grads(clip, members, need_clip, self._storage)
        return result
