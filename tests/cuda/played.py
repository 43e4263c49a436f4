"""A model, an optimizer and what happens to them, played on any device."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import nbopt as nb
from nbopt.errors import NonFiniteGradientError
from nbopt.kernels import tables as t


@dataclass(frozen=True)
class Case:
    """What to build, and the gradients of each step; all that is drawn depends on names and steps alone.

    Attributes
    ----------
    shapes : mapping
        By name, in the order of creation.
    make : callable
        Takes `parameters`, as an optimizer does, and returns the optimizer.
    attrs : mapping
        Attributes by name.
    shared : sequence of str
        Names that are asked for a second time.
    groups : sequence of dict, optional
        With names as ``params``; one group of all parameters if left out.
    values, powers : mapping
        The power of two that values, and gradients, are multiplied by, by name.
    spoilt : mapping
        By step, (name, index, number): an element of a gradient.
    absent : mapping
        By step, the names that get no gradient.
    edit : callable, optional
        ``edit(step, params, opt)``, before each step; step 1 is the first.
    """

    shapes: Mapping[str, tuple[int, ...]]
    make: Callable[..., nb.Optimizer]
    dtypes: Sequence[str] = ("float32", "float64")
    attrs: Mapping[str, Any] = field(default_factory=dict)
    shared: Sequence[str] = ()
    groups: Sequence[Mapping[str, Any]] | None = None
    values: Mapping[str, int] = field(default_factory=dict)
    powers: Mapping[str, int] = field(default_factory=dict)
    spoilt: Mapping[int, tuple[str, Any, float]] = field(default_factory=dict)
    absent: Mapping[int, set[str]] = field(default_factory=dict)
    edit: Callable[[int, nb.ParameterBuffer, nb.Optimizer], None] | None = None
    steps: int = 2

    def build(self, dtype: str, device: str) -> tuple[nb.ParameterBuffer, nb.Optimizer]:
        """Return the parameters and their optimizer."""
        params = nb.ParameterBuffer(dtype=dtype, device=device, seed=0)
        for name, shape in self.shapes.items():
            initial = nb.initializer.Assign(self._drawn(name, 0, self.values, dtype))
            params.create_parameter(shape, name, self.attrs.get(name), default_initializer=initial)
        for name in self.shared:
            params.create_parameter(self.shapes[name], name)
        groups = self.groups or [{"params": list(self.shapes)}]
        chosen = [{**group, "params": [params[name] for name in group["params"]]} for group in groups]
        return params, self.make(parameters=chosen)

    def gradients(self, step: int, dtype: str) -> dict[str, Any]:
        """Return the gradients of a step by name, None for an absent one."""
        grads: dict[str, Any] = {name: self._drawn(name, step, self.powers, dtype) for name in self.shapes}
        if step in self.spoilt:
            name, index, number = self.spoilt[step]
            grads[name][index] = number
        return {name: None if name in self.absent.get(step, ()) else grad for name, grad in grads.items()}

    def _drawn(self, name: str, step: int, powers: Mapping[str, int], dtype: str) -> np.ndarray:
        rng = np.random.default_rng([step, *name.encode()])
        numbers = rng.standard_normal(self.shapes[name]) * np.exp2(rng.uniform(-20, 4, self.shapes[name]))
        return np.asarray(np.ldexp(numbers, powers.get(name, 0)), dtype)

    def play(self, dtype: str, device: str) -> list[dict[str, Any]]:
        """Take the steps; return what each left."""
        params, opt = self.build(dtype, device)
        left = []
        for step in range(1, self.steps + 1):
            if self.edit:
                self.edit(step, params, opt)
            raised = None
            try:
                opt.step(self.gradients(step, dtype))
                opt.check()
            except NonFiniteGradientError as error:
                raised = str(error)
            left.append({"raised": raised, **picture(params, opt)})
        return left


def picture(params: nb.ParameterBuffer, opt: nb.Optimizer) -> dict[str, Any]:
    """All that can be seen of parameters and an optimizer, and the sums of the last step, as text."""
    squares = opt._tables.coefficients[:, t.COEFFICIENT_SQUARE : t.COEFFICIENT_SQUARE + t.BINS]
    norms = {"grad_norm": opt.grad_norm, "clip_coefficients": opt.clip_coefficients}
    counts = {"step_count": opt.step_count, "steps_skipped": opt.steps_skipped}
    seen = {**arrays_of(params), **opt.state_dict(), **norms, **counts, "squares": squares}
    return {
        key: digest(value) if isinstance(value, np.ndarray) else repr(value) for key, value in seen.items()
    }


def arrays_of(params: nb.ParameterBuffer) -> dict[str, np.ndarray]:
    """Copies of all values, those of g and v too."""
    halves = [half for p in params.values() for half in (p.weight_g, p.weight_v) if half is not None]
    return params.numpy() | {half.name: half.numpy() for half in halves}


def digest(array: np.ndarray) -> str:
    """A hash of every bit, but for those that tell one NaN from another, which no contract fixes."""
    plain = np.where(np.isnan(array), np.nan, array).astype(array.dtype)
    return f"{array.dtype}{array.shape} {hashlib.sha256(plain.tobytes()).hexdigest()[:16]}"
