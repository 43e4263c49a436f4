"""The table of random configurations: parameters, policies, optimizer, groups, and what happens at each step.

A configuration depends on its seed alone and belongs to no library. `Traits` says what a peer is able to
express, and what is left out because nbopt differs there on purpose (D-numbers are those of the design).
Decays and clips are those of the oracle; a clip is an object: held by two groups it is one clip.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tests.oracle import Clip, Decay

# Rank 0 to 4; more than a block of 4096 elements, more than a block of 256 rows.
SHAPES = [
    (),
    (1,),
    (5,),
    (129,),
    (4, 3),
    (3, 1),
    (300, 17),
    (2, 3, 2),
    (4, 1, 70),
    (2, 2, 3, 2),
    (1, 2, 1, 3),
]
DIMS = [(rank, dim) for rank in range(1, 5) for dim in (*range(rank), None)]
RATES = [1.0, 0.0, 0.3, 0.5, 2.0]
MOMENTA = [0.0, 0.5, 0.9, 0.99]
# Their distances to 1 are the same in float32 and float64; peers form them before they round.
BETAS = [0.0, 0.5, 0.875, 0.96875, 1 - 2.0**-10]


@dataclass(frozen=True)
class Traits:
    """What a peer can express in the same meaning as nbopt."""

    name: str
    rules: tuple[str, ...] = ("Momentum", "SGD")
    l1: bool = True
    low: bool = True  # a lower bound of its own for a clip by value
    float64_norm: bool = True  # a clip by norm of float64 gradients
    rescale: bool = True  # D5
    policies_in_groups: bool = True  # D2: rate and regularizer of a parameter that is in a group
    decay_in_groups: bool = True  # D2: a group may override any decay, by None too
    joint_norms: bool = True  # D3: clips of one group name are one
    edit_groups: bool = True  # set values of a group between steps
    float32_numbers: bool = False  # D6: float64 momentum and decay are rounded to float32
    normed: bool = False  # weight norm


TORCH = Traits("torch", l1=False, low=False)
TORCH_WEIGHT_NORM = Traits("weight-norm", rules=("Momentum",), l1=False, low=False, normed=True)
PADDLE = Traits(
    "paddle",
    float64_norm=False,
    rescale=False,
    policies_in_groups=False,
    decay_in_groups=False,
    joint_norms=False,
    edit_groups=False,
    float32_numbers=True,
)
TORCH_ADAM = replace(TORCH, name="torch-adam", rules=("Adam", "AdamW"))
TORCH_ADAM_WEIGHT_NORM = replace(TORCH_WEIGHT_NORM, name="adam-weight-norm", rules=("Adam",))
PADDLE_ADAM = replace(PADDLE, name="paddle-adam", rules=("Adam", "AdamW"))


@dataclass(frozen=True)
class Spec:
    """One parameter; `regularizer=None` inherits, `Decay()` means none. `dim` counts where `normed`."""

    shape: tuple[int, ...]
    normed: bool = False
    dim: int | None = None
    learning_rate: float = 1.0
    regularizer: Decay | None = None
    need_clip: bool = True
    trainable: bool = True

    @property
    def policies(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in POLICIES}


POLICIES = ("learning_rate", "regularizer", "need_clip", "trainable")


@dataclass(frozen=True)
class Configuration:
    """One training run."""

    peer: str
    seed: int
    rule: str
    dtype: str
    steps: int
    params: dict[str, Spec]
    options: dict[str, Any]
    groups: list[dict[str, Any]] | None = None
    grad_scale: float = 1.0
    absent: dict[int, set[str]] = field(default_factory=dict)
    zero: dict[int, set[str]] = field(default_factory=dict)
    rates: dict[int, float] = field(default_factory=dict)
    edits: dict[int, list[tuple[str | int, str, Any]]] = field(default_factory=dict)  # an int: a group

    @property
    def label(self) -> str:
        clip = self.options.get("grad_clip")
        nesterov = "nesterov" if self.options.get("use_nesterov") else ""
        dims = "dim" + "".join(str(s.dim) for s in self.params.values() if s.normed)
        parts = (
            *(self.rule, nesterov, self.dtype, clip.kind if clip else "", "groups" if self.groups else ""),
            *("edits" if self.edits else "", "absent" if self.absent else "", dims if dims != "dim" else ""),
        )
        return "-".join([f"{self.seed:03}", *(part for part in parts if part)])

    def values(self) -> dict[str, np.ndarray]:
        """Starting values; a plain parameter has exact zeros, where the sign of L1 is 0."""
        rng = np.random.default_rng([self.seed, 0])
        result = {}
        for name, spec in self.params.items():
            value = np.asarray(rng.normal(size=spec.shape), self.dtype)
            if value.size > 1 and not spec.normed:
                value.reshape(-1)[::5] = 0.0
            result[name] = value
        return result

    def grads(self, t: int) -> dict[str, np.ndarray | None]:
        """Gradients of step t by parameter, None where absent; frozen parameters have one, to be ignored."""
        rng = np.random.default_rng([self.seed, 1, t])
        result: dict[str, np.ndarray | None] = {}
        for name, spec in self.params.items():
            scale = 0.0 if name in self.zero.get(t, ()) else self.grad_scale
            grad = np.asarray(scale * rng.normal(size=spec.shape), self.dtype)
            result[name] = None if name in self.absent.get(t, ()) else grad
        return result


def table(traits: Traits, count: int) -> list[Configuration]:
    """The first `count` configurations of a peer."""
    return [_Draw(traits, seed).configuration() for seed in range(count)]


class _Draw:
    """Draws one configuration."""

    def __init__(self, traits: Traits, seed: int):
        self.traits = traits
        self.seed = seed
        self.rng = np.random.default_rng([seed, *traits.name.encode()])
        self.dtype = self.one_of(["float32", "float64"])
        self.scale = self.number(0.03, 3.0)

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def one_of(self, choices: Any) -> Any:
        return choices[self.rng.integers(len(choices))]

    def number(self, low: float, high: float) -> float:
        """A number spread evenly over orders of magnitude."""
        return round(float(np.exp(self.rng.uniform(np.log(low), np.log(high)))), 6)

    def coefficient(self, value: float) -> float:
        rounded = self.traits.float32_numbers and self.dtype == "float64"
        return float(np.float32(value)) if rounded else value

    def decay(self) -> Decay:
        if self.chance(0.2):
            return Decay()
        coefficient = self.coefficient(self.number(1e-3, 0.3))
        if self.traits.l1 and self.chance(0.5):
            return Decay(l1=coefficient)
        return Decay(l2=coefficient)

    def clip(self, size: int) -> Clip:
        """A clip that acts on about half of the gradients of `size` elements."""
        kinds = ["value", "global", "global", "norm", "norm"]
        if self.dtype == "float64" and not self.traits.float64_norm:
            kinds = kinds[:3]
        kind, limit = self.one_of(kinds), self.scale * self.number(0.2, 2.0)
        if kind == "value":
            own = self.traits.low and self.chance(0.5)
            return Clip(kind, limit, -self.scale * self.number(0.2, 2.0) if own else None)
        return Clip(kind, limit * float(np.sqrt(size if kind == "global" else size / 4)))

    def policies(self, grouped: bool) -> dict[str, Any]:
        drawn: dict[str, Any] = {"need_clip": not self.chance(0.25), "trainable": not self.chance(0.12)}
        if self.traits.policies_in_groups or not grouped:
            drawn["learning_rate"] = self.one_of(RATES) if self.chance(0.5) else 1.0
            drawn["regularizer"] = self.decay() if self.chance(0.4) else None
        return drawn

    def params(self, grouped: bool) -> dict[str, Spec]:
        specs = {f"p{i}": Spec(self.one_of(SHAPES)) for i in range(self.rng.integers(2, 6))}
        if self.traits.normed:
            first, *others = [DIMS[self.seed % len(DIMS)], self.one_of(DIMS), self.one_of(DIMS)]
            normed = {"w0": first} | {f"w{i}": dim for i, dim in enumerate(others, 1) if self.chance(0.4)}
            plain = {name: spec for name, spec in specs.items() if self.chance(0.3)}
            specs = {name: self.weight(*which) for name, which in normed.items()} | plain
        return {name: Spec(s.shape, s.normed, s.dim, **self.policies(grouped)) for name, s in specs.items()}

    def weight(self, rank: int, dim: int | None) -> Spec:
        """A weight-normed parameter; axes of size 1 are among them, and more than 256 rows."""
        shape = tuple(int(self.one_of([1, 2, 3, 5])) for _ in range(rank))
        if rank == 2 and self.chance(0.3):
            shape = self.one_of([(300, 3), (3, 300), (70, 65)])
        return Spec(shape, normed=True, dim=dim)

    def configuration(self) -> Configuration:
        grouped = self.chance(0.5)
        rule = self.one_of(self.traits.rules)
        params = self.params(grouped)
        size = sum(int(np.prod(spec.shape)) for spec in params.values())
        steps = int(self.rng.integers(5, 11))
        options = {"learning_rate": self.number(3e-3, 0.5)} | self.hyper(rule)
        if rule == "Momentum" and self.traits.rescale and self.chance(0.3):
            options["rescale_grad"] = self.number(0.1, 5.0)
        if self.chance(0.6):
            options["weight_decay"] = self.decay_of(rule) if self.chance(0.9) else None
        if rule == "AdamW" and options.get("weight_decay") is None:
            options["weight_decay"] = 0.0  # a peer takes no None
        if rule.startswith("Adam") and not self.traits.normed:
            options["amsgrad"] = self.chance(0.3)
        if self.chance(0.7):
            options["grad_clip"] = self.clip(size)
        groups = self.groups(rule, list(params), size, options) if grouped else None
        edits = self.edits(params, steps, grouped) if self.chance(0.4) else {}
        if groups and self.traits.edit_groups and self.chance(0.4):
            for t in range(1, steps, 2):
                edits.setdefault(t, []).append(self.group_edit(rule, groups, options))
        return Configuration(
            peer=self.traits.name,
            seed=self.seed,
            rule=rule,
            dtype=self.dtype,
            steps=steps,
            params=params,
            options=options,
            groups=groups,
            grad_scale=self.scale,
            absent=self.names_by_step(params, steps) if self.chance(0.4) else {},
            zero=self.names_by_step(params, steps) if self.chance(0.3) else {},
            rates=self.rates(steps) if self.chance(0.3) else {},
            edits=edits,
        )

    def decay_of(self, rule: str) -> Decay | float:
        """A decay; of AdamW a number, decoupled."""
        return self.coefficient(self.number(1e-3, 0.3)) if rule == "AdamW" else self.decay()

    def hyper(self, rule: str) -> dict[str, Any]:
        if rule == "SGD":
            return {}
        if rule.startswith("Adam"):
            # Without an epsilon, a gradient that cancels its decay gives a step of the sign of rounding.
            least = 0.05 if self.dtype == "float32" else 1e-3
            betas = {"beta1": self.one_of(BETAS), "beta2": self.one_of(BETAS)}
            return betas | {"epsilon": self.coefficient(self.scale * self.number(least, 1.0))}
        momentum = self.coefficient(self.one_of(MOMENTA))
        return {"momentum": momentum, "use_nesterov": self.chance(0.5)}

    def groups(self, rule: str, names: list[str], size: int, options: dict[str, Any]) -> list[dict[str, Any]]:
        """One to three groups; now and then a parameter is in none."""
        if len(names) > 1 and self.chance(0.2):
            names = names[:-1]
        count = min(self.one_of([1, 2, 2, 3]), len(names))
        owner = [*range(count), *(int(i) for i in self.rng.integers(count, size=len(names) - count))]
        groups = []
        together, named = self.chance(0.5), self.traits.joint_norms and self.chance(0.5)
        limit = self.scale * self.number(0.1, 1.0) * float(np.sqrt(size))
        shared = Clip("global", limit)
        for index in range(count):
            group = {"params": [name for name, i in zip(names, owner, strict=True) if i == index]}
            if self.chance(0.5):
                group["learning_rate"] = self.one_of(RATES)
            if self.chance(0.5):
                group |= {key: value for key, value in self.hyper(rule).items() if self.chance(0.7)}
            if self.traits.rescale and self.chance(0.2):
                group["rescale_grad"] = self.number(0.1, 5.0)
            if self.chance(0.5):
                group |= self.group_decay(rule, options.get("weight_decay"))
            if self.chance(0.8 if together else 0.5):
                own = [None, options.get("grad_clip"), self.clip(size)]
                joint = Clip("global", limit, group_name="named") if named else shared
                group["grad_clip"] = joint if together else self.one_of(own)
            groups.append(group)
        return groups

    def group_decay(self, rule: str, inherited: Any) -> dict[str, Any]:
        if rule == "AdamW":
            return {"weight_decay": self.decay_of(rule) if self.chance(0.7) else 0.0}
        decay = self.decay() if self.chance(0.7) else None
        if not self.traits.decay_in_groups:
            if inherited and inherited.l1 and rule == "Momentum":
                return {}  # an L1 decay of the optimizer comes on top of any of the group
            if decay is None and rule != "Momentum":
                return {}  # None falls back to the optimizer's
        return {"weight_decay": decay}

    def names_by_step(self, params: dict[str, Spec], steps: int) -> dict[int, set[str]]:
        return {t: {name for name in params if self.chance(0.25)} for t in range(steps)}

    def rates(self, steps: int) -> dict[int, float]:
        return {t: self.number(3e-3, 0.5) for t in range(1, steps) if self.chance(0.4)}

    def edits(
        self, params: dict[str, Spec], steps: int, grouped: bool
    ) -> dict[int, list[tuple[str | int, str, Any]]]:
        """Policies set between steps, of a weight-normed parameter sometimes only those of its g or v."""
        result: dict[int, list[tuple[str | int, str, Any]]] = {}
        for _ in range(self.rng.integers(1, 5)):
            name = self.one_of(list(params))
            if params[name].normed and self.chance(0.5):
                name += self.one_of(["_g", "_v"])
            key, value = self.one_of(list(self.policies(grouped).items()))
            result.setdefault(int(self.rng.integers(1, steps)), []).append((name, key, value))
        return result

    def group_edit(
        self, rule: str, groups: list[dict[str, Any]], options: dict[str, Any]
    ) -> tuple[int, str, Any]:
        index = int(self.rng.integers(len(groups)))
        decays = [0.0 if rule == "AdamW" else None, self.decay_of(rule)]
        values = {"learning_rate": self.one_of(RATES), "weight_decay": self.one_of(decays)}
        values |= self.hyper(rule) | {"grad_clip": self.one_of([None, options.get("grad_clip")])}
        values.pop("momentum", None)
        if groups[index].get("momentum", options.get("momentum")):
            values["momentum"] = self.one_of(MOMENTA[1:])  # torch leaves a velocity alone while momentum is 0
        key = self.one_of(list(values))
        return index, key, values[key]
