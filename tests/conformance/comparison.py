"""nbopt under a configuration, and the comparison of two adapters step by step.

An adapter is built from a `Configuration` and has `set_lr(value)`, `edit(name or group, key, value)`,
`step(grads)` and `values()`: arrays by the keys of a state dict, `w`, `w_g`, `w_v` for values, `w.velocity`
for accumulators.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.testing import assert_allclose

import nbopt as nb
from tests.conformance.configurations import Configuration
from tests.oracle import Clip, Decay

# Relative, to an element or a tenth of it to the largest of its kind (elements that cancel).
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


def as_regularizer(decay: Decay | float | None) -> nb.regularizer.Regularizer | float | None:
    """The package's form of a decay; a number, AdamW's, is one in both."""
    if decay is None or isinstance(decay, float):
        return decay
    return nb.regularizer.L1Decay(decay.l1) if decay.l1 else nb.regularizer.L2Decay(decay.l2)


def as_clip(clip: Clip | None) -> nb.clip.GradientClip | None:
    """A new object."""
    match clip and clip.kind:
        case None:
            return None
        case "value":
            return nb.ClipGradByValue(clip.limit, clip.low)
        case "norm":
            return nb.ClipGradByNorm(clip.limit)
    name = {} if clip.group_name is None else {"group_name": clip.group_name}
    return nb.ClipGradByGlobalNorm(clip.limit, **name)


class NbOpt:
    """nbopt. `own_clips` gives each group a clip of its own where several would share one."""

    def __init__(self, conf: Configuration, own_clips: bool = False):
        self.clips: dict[int, Any] = {}
        self.own_clips = own_clips
        self.params = nb.ParameterBuffer(dtype=conf.dtype)
        for name, value in conf.values().items():
            spec = conf.params[name]
            policies = spec.policies | {"regularizer": as_regularizer(spec.regularizer)}
            policies["initializer"] = nb.initializer.Assign(value)
            kind = nb.ParamAttr
            if spec.normed:
                kind, policies["dim"] = nb.WeightNormParamAttr, spec.dim
            self.params.create_parameter(spec.shape, name, attr=kind(**policies))
        parameters: Any = self.params
        if conf.groups is not None:
            clip = {"grad_clip": conf.options.get("grad_clip")} if own_clips else {}
            parameters = [self.translated(clip | group) for group in conf.groups]
        rule = getattr(nb.optimizer, conf.rule)
        self.opt = rule(parameters=parameters, **self.translated(conf.options))

    def translated(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options of an optimizer or a group in the package's own types; one object for one clip."""
        result = dict(options)
        if "params" in options:
            result["params"] = [self.params[name] for name in options["params"]]
        if "weight_decay" in options:
            result["weight_decay"] = as_regularizer(options["weight_decay"])
        if "grad_clip" in options:
            clip = options["grad_clip"]
            own = as_clip(clip)
            result["grad_clip"] = own if self.own_clips else self.clips.setdefault(id(clip), own)
        return result

    def set_lr(self, value: float) -> None:
        self.opt.set_lr(value)

    def edit(self, name: str | int, key: str, value: Any) -> None:
        if isinstance(name, int):
            self.opt.param_groups[name].update(self.translated({key: value}))
        else:
            setattr(self.params[name], key, as_regularizer(value) if key == "regularizer" else value)

    def step(self, grads: Mapping[str, np.ndarray | None]) -> None:
        self.opt.step(grads)

    def values(self) -> dict[str, np.ndarray]:
        parts = [q for p in self.params.values() for q in (p, p.weight_g, p.weight_v) if q is not None]
        return self.opt.state_dict() | {part.name: part.numpy() for part in parts}


def compare(got: Mapping[str, Any], expected: Mapping[str, np.ndarray], tolerance: float, where: str) -> None:
    """Every expected array, in shape and dtype too."""
    largest: dict[str, float] = {}  # by accumulator; of values under the empty name
    for key, array in expected.items():
        kind = key.partition(".")[2]
        largest[kind] = max(largest.get(kind, 0.0), float(np.max(np.abs(array))))
    for key, array in expected.items():
        assert (got[key].shape, got[key].dtype) == (array.shape, array.dtype), f"{key} {where}"
        assert np.isfinite(array).all(), f"{key} {where}"  # else NaN would equal NaN
        atol = tolerance / 10 * largest[key.partition(".")[2]]
        assert_allclose(got[key], array, rtol=tolerance, atol=atol, err_msg=f"{key} {where}")


def follow(conf: Configuration, ours: Any, peer: Any, tolerance: float | None = None) -> None:
    """Step both and compare after every step; a failure prints the configuration."""
    tolerance = tolerance or TOLERANCE[conf.dtype]
    compare(ours.values(), peer.values(), tolerance, f"before the first step of {conf}")
    for t in range(conf.steps):
        for side in (ours, peer):
            if t in conf.rates:
                side.set_lr(conf.rates[t])
            for edit in conf.edits.get(t, ()):
                side.edit(*edit)
            side.step(conf.grads(t))
        compare(ours.values(), peer.values(), tolerance, f"after step {t} of {conf}")


def clip_in_place(conf: Configuration, norm_type: float, theirs: Any) -> None:
    """`nb.clip_grad_norm_` against `theirs(grads, limit) -> (norm, grads)`; peers add 1e-6 to the norm."""
    rng = np.random.default_rng(conf.seed)
    grads = {name: np.asarray(rng.normal(size=spec.shape), conf.dtype) for name, spec in conf.params.items()}
    limit = float(
        rng.uniform(0.1, 3.0) * np.linalg.norm([np.linalg.norm(g) for g in grads.values()], norm_type)
    )
    params = nb.ParameterBuffer.from_arrays(conf.values())
    params.set_grads(grads)
    total = nb.clip_grad_norm_(params, limit, norm_type)
    expected_total, expected = theirs([grad.copy() for grad in grads.values()], limit)
    where = f"after clip_grad_norm_({limit}, {norm_type}) of {conf}"
    assert_allclose(total, expected_total, rtol=TOLERANCE[conf.dtype], err_msg=where)
    for name, array in zip(grads, expected, strict=True):
        assert_allclose(params[name].grad, array, rtol=1e-5, err_msg=f"{name} {where}")
