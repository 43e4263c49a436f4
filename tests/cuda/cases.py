"""Optimizers that step on any device: what each leaves must be the same to the bit on all of them.

Run as a script with a device, it plays every case there and prints what came of it.
"""

import functools
import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import nbopt as nb
from nbopt.errors import NonFiniteGradientError
from tests.cuda import rules

L1, L2 = nb.regularizer.L1Decay, nb.regularizer.L2Decay
Attr, Normed = nb.ParamAttr, nb.WeightNormParamAttr
GLOBAL, NORM, VALUE = nb.ClipGradByGlobalNorm, nb.ClipGradByNorm, nb.ClipGradByValue
NAN, INF = float("nan"), float("inf")
BOTH = ("float32", "float64")
NESTEROV = functools.partial(nb.optimizer.Momentum, 0.05, 0.9, use_nesterov=True)


@dataclass(frozen=True)
class Case:
    """A model, an optimizer of it, and what happens to them.

    Attributes
    ----------
    shapes : mapping
        By name, in the order of creation.
    make : callable
        Takes what an optimizer takes as `parameters`, by that name, and returns the optimizer.
    attrs : mapping
        Attributes by name.
    groups : list of dict, optional
        With names for parameters; all of them in one group if left out.
    values, powers : mapping
        The power of two that values, and gradients, are multiplied by, by name.
    spoilt : mapping
        By step, (name, index, number): an element of a gradient.
    absent : mapping
        By step, the names without a gradient.
    edit : callable, optional
        ``edit(step, params, opt)`` before a step.
    """

    shapes: Mapping[str, Any]
    make: Callable[..., Any] = NESTEROV
    dtypes: tuple[str, ...] = BOTH
    attrs: Mapping[str, Any] = field(default_factory=dict)
    groups: list[dict[str, Any]] | None = None
    values: Mapping[str, int] = field(default_factory=dict)
    powers: Mapping[str, int] = field(default_factory=dict)
    spoilt: Mapping[int, tuple[str, Any, float]] = field(default_factory=dict)
    absent: Mapping[int, set[str]] = field(default_factory=dict)
    edit: Callable[[int, Any, Any], None] | None = None
    steps: int = 2

    def play(self, dtype: str, device: str) -> list[dict[str, Any]]:
        """Take the steps; return what each left."""
        params = nb.ParameterBuffer(dtype=dtype, device=device, seed=0)
        for name, shape in self.shapes.items():
            attr = self.attrs.get(name) or Attr()
            initial = nb.initializer.Assign(self.drawn(name, 0, self.values, dtype))
            params.create_parameter(shape, name, attr=attr.replaced(initializer=initial))
        opt = self.make(parameters=self.chosen(params))
        return [self.step(step, params, opt) for step in range(1, self.steps + 1)]
