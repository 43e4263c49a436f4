"""Recorded reference trajectories (tests/golden/*.npz), and how to play them again.

A trajectory is one flat dict of arrays per step, keyed like a state dict: `w`, `w_g`, `w_v` for the
values after the step, `w.velocity` for accumulators. `Recording.expected` has what was recorded;
`play_oracle` and `play_nbopt` produce the same keys.

A decay is written as None, a float (L2) or ["L1" | "L2", coefficient], a clip as {"type": ...}.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import nbopt as nb
from tests import oracle
from tests.oracle import Clip, Decay, Oracle, Param

GOLDEN = Path(__file__).parent / "golden"
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Recording:
    """One file. Of family `optimizer`: parameters w, b, k; `weight_norm_static`: one weight w."""

    meta: dict[str, Any]
    arrays: Arrays

    @property
    def weight_norm(self) -> bool:
        return self.meta["family"] == "weight_norm_static"

    @property
    def initial(self) -> Arrays:
        """Starting values, in the order in which the optimizer got them."""
        if self.weight_norm:
            return {"w": self.arrays["W"]}
        names = [key.partition("::")[2] for key in self.arrays if key.startswith("init::")]
        return {name: self.arrays[f"init::{name}"] for name in names}

    def attr(self, name: str) -> dict[str, Any]:
        return self.meta["attr"] if self.weight_norm else self.meta["params"][name]["attr"]

    def lr(self, t: int) -> float:
        """The base rate of step t; a schedule is in here too."""
        return float(self.arrays["lr"][t]) if "lr" in self.arrays else self.opt["learning_rate"]

    @property
    def opt(self) -> dict[str, Any]:
        return self.meta["opt"]

    def grads(self, t: int) -> dict[str, np.ndarray | None]:
        """Gradients of step t, None where absent. A frozen parameter has one, to be ignored."""
        if self.weight_norm:
            return {"w": self.arrays["dLdw"][t]}
        present = {
            name: self.arrays[f"has_grad::{name}"][t] or not self.attr(name).get("trainable", True)
            for name in self.initial
        }
        return {n: self.arrays[f"grads::{n}"][t] if here else None for n, here in present.items()}

    def expected(self, t: int) -> Arrays:
        """What was recorded after step t."""
        if self.weight_norm:
            last = t + 1 == self.meta["steps"]
            w = {} if last else {"w": self.arrays["w_forward"][t + 1]}
            return w | {"w_g": self.arrays["g"][t], "w_v": self.arrays["v"][t]}
        result = {}
        for key, array in self.arrays.items():
            match key.split("::"):
                case ["params", name]:
                    result[name] = array[t]
                case ["state", accumulator, name] if not accumulator.endswith("_pow_acc"):
                    result[f"{name}.{accumulator}"] = array[t]
        return result

    def with_opt(self, **changes: Any) -> Recording:
        """The same gradients under other arguments; nothing is recorded of that."""
        return replace(self, meta=self.meta | {"opt": self.opt | changes})

    def with_absent(self, name: str, *steps: int) -> Recording:
        """The same, with the gradient of one parameter absent at these steps."""
        key = f"has_grad::{name}"
        mask = self.arrays[key].copy()
        mask[list(steps)] = False
        return replace(self, arrays=self.arrays | {key: mask})


def load(name: str) -> Recording:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        arrays = dict(file)
    return Recording(json.loads(str(arrays.pop("meta"))), arrays)


HYPER = ("momentum", "use_nesterov", "beta1", "beta2", "epsilon", "amsgrad")


# --- the oracle -----------------------------------------------------------------------------------


def oracle_decay(spec: Any) -> Decay | None:
    if spec is None:
        return None
    kind, coeff = spec if isinstance(spec, list) else ("L2", spec)
    return Decay(**{kind.lower(): coeff})


def oracle_clip(spec: dict[str, Any] | None) -> Clip | None:
    if spec is None:
        return None
    limit = spec["max"] if spec["type"] == "value" else spec["clip_norm"]
    return Clip(spec["type"], limit, spec.get("min"))


def build_oracle(rec: Recording, *, paddle: bool = False) -> Oracle:
    """In float64. `paddle=True` reads the configuration as Paddle does where nbopt differs:

    `rescale_grad` is ignored; groups drop the rate and the regularizer of a parameter, clip on
    their own, and an L1 decay of the optimizer comes on top of a group's decay.
    """
    opt = dict(rec.opt)
    hyper = {key: opt[key] for key in HYPER if key in opt}
    grouped = "groups" in rec.meta
    decoupled = opt["type"] == "AdamW"
    decay = opt.get("weight_decay") if decoupled else oracle_decay(opt.get("weight_decay"))
    clip = oracle_clip(opt.get("grad_clip"))

    params, composed = {}, {}
    for name, start in rec.initial.items():
        attr = dict(rec.attr(name))
        if paddle and grouped:
            attr = {key: attr[key] for key in attr if key not in ("learning_rate", "regularizer")}
        if "regularizer" in attr:
            attr["regularizer"] = oracle_decay(attr["regularizer"])
        start = start.astype(np.float64)
        if rec.weight_norm:
            composed[name] = rec.meta["dim"]
            params |= oracle.weight_norm(name, start, rec.meta["dim"], **attr)
        else:
            params[name] = Param(start, **attr, decays=name not in opt.get("no_decay_names", ()))

    groups = [dict(group) for group in rec.meta.get("groups", [])]
    for group in groups:
        if "weight_decay" in group and not decoupled:
            group["weight_decay"] = oracle_decay(group["weight_decay"])
            if paddle and decay and decay.l1:
                own = group["weight_decay"] or Decay()
                group["weight_decay"] = Decay(own.l1 or decay.l1, own.l2)
        if "grad_clip" in group:
            group["grad_clip"] = oracle_clip(group["grad_clip"])
        elif paddle:
            group["grad_clip"] = oracle_clip(opt.get("grad_clip"))

    return Oracle(
        opt["type"],
        params,
        rec.lr(0),
        composed=composed,
        weight_decay=decay,
        grad_clip=clip,
        rescale_grad=1.0 if paddle else opt.get("rescale_grad", 1.0),
        groups=groups,
        storage=rec.arrays["W" if rec.weight_norm else "init::w"].dtype,
        **hyper,
    )


def play_oracle(rec: Recording, *, paddle: bool = False) -> Iterator[Arrays]:
    opt = build_oracle(rec, paddle=paddle)
    for t in range(rec.meta["steps"]):
        opt.learning_rate = rec.lr(t)
        opt.step(rec.grads(t))
        result = {name: opt.value(name) for name in [*opt.params, *opt.composed]}
        for name, param in opt.params.items():
            result |= {f"{name}.{key}": array for key, array in param.state.items()}
        yield result


# --- nbopt ----------------------------------------------------------------------------------------


def nbopt_decay(spec: Any) -> Any:
    if not isinstance(spec, list):
        return spec  # None or a number
    kind, coeff = spec
    return {"L1": nb.regularizer.L1Decay, "L2": nb.regularizer.L2Decay}[kind](coeff)


def nbopt_clip(spec: dict[str, Any] | None) -> Any:
    match spec:
        case None:
            return None
        case {"type": "value", "max": high}:
            return nb.ClipGradByValue(high, spec.get("min"))
        case {"type": "norm", "clip_norm": limit}:
            return nb.ClipGradByNorm(limit)
        case {"type": "global", "clip_norm": limit}:
            skip = spec.get("auto_skip_clip", False)
            return nb.ClipGradByGlobalNorm(limit, auto_skip_clip=skip)
    raise AssertionError(f"unknown clip {spec}")


def build_nbopt(rec: Recording, *, own_clips: bool = False) -> tuple[Any, Any]:
    """The buffer and its optimizer. `own_clips=True` gives each group a clip object of its own."""
    initial = rec.initial
    params = nb.ParameterBuffer(dtype=initial["w"].dtype.name)
    for name, start in initial.items():
        attr = dict(rec.attr(name))
        if "regularizer" in attr:
            attr["regularizer"] = nbopt_decay(attr["regularizer"])
        if rec.weight_norm:
            attr |= {"dim": rec.meta["dim"], "initializer": nb.initializer.Assign(start)}
            params.create_parameter(start.shape, name, attr=nb.WeightNormParamAttr(**attr))
        else:
            params.create_parameter(start.shape, name, attr=nb.ParamAttr(**attr)).set_value(start)

    groups = [dict(group) for group in rec.meta.get("groups", [])]
    for group in groups:
        group["params"] = [params[name] for name in group["params"]]
        if "weight_decay" in group:
            group["weight_decay"] = nbopt_decay(group["weight_decay"])
        if "grad_clip" in group or own_clips:
            group["grad_clip"] = nbopt_clip(group.get("grad_clip", rec.opt.get("grad_clip")))

    kwargs = rec.opt | {"learning_rate": rec.lr(0), "parameters": groups or params}
    kwargs["weight_decay"] = nbopt_decay(kwargs.get("weight_decay"))
    kwargs["grad_clip"] = nbopt_clip(kwargs.get("grad_clip"))
    if "no_decay_names" in kwargs:
        without = kwargs.pop("no_decay_names")
        kwargs["apply_decay_param_fun"] = lambda name: name not in without
    return params, getattr(nb.optimizer, kwargs.pop("type"))(**kwargs)


def build_schedule(spec: Any) -> Any:
    """A schedule as a recording describes it; what is no schedule stays as it is."""
    if not isinstance(spec, dict):
        return spec
    kwargs = {key: build_schedule(value) for key, value in spec["kwargs"].items()}
    if "lr_lambda" in kwargs:
        kwargs["lr_lambda"] = eval(f"lambda e: {kwargs['lr_lambda']}")
    return getattr(nb.optimizer.lr, spec["type"])(**kwargs)


def play_nbopt(rec: Recording, *, own_clips: bool = False, schedule: Any = None) -> Iterator[Arrays]:
    """`schedule` drives the optimizer and is stepped after it; else the recorded rates are set by hand."""
    params, opt = build_nbopt(rec, own_clips=own_clips)
    if schedule is not None:
        opt.set_lr_scheduler(schedule)
    leaves = [name + end for name in params for end in ("_g", "_v")] if rec.weight_norm else []
    for t in range(rec.meta["steps"]):
        if schedule is None and opt.get_lr() != rec.lr(t):
            opt.set_lr(rec.lr(t))
        for name, grad in rec.grads(t).items():
            if grad is None:
                params[name].clear_grad(set_to_zero=False)
            else:
                params[name].grad = grad
        opt.step()
        yield opt.state_dict() | {name: params[name].numpy() for name in [*params, *leaves]}
        if schedule is not None:
            schedule.step(*([rec.meta["metrics"][t]] if "metrics" in rec.meta else []))
