"""Paddle under a configuration, in dynamic mode on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tests.conformance.configurations import Configuration
from tests.oracle import Clip, Decay

paddle = pytest.importorskip("paddle", minversion="3.3.1")


def as_regularizer(decay: Decay | None) -> Any:
    if decay is None:
        return None
    return paddle.regularizer.L1Decay(decay.l1) if decay.l1 else paddle.regularizer.L2Decay(decay.l2)


def as_weight_decay(decay: Decay | float | None) -> Any:
    """A number where it is L2, as most write it, and AdamW's."""
    if isinstance(decay, float):
        return decay
    return decay.l2 if decay and not decay.l1 else as_regularizer(decay)


def as_clip(clip: Clip | None) -> Any:
    match clip and clip.kind:
        case None:
            return None
        case "value":
            return paddle.nn.ClipGradByValue(clip.limit, clip.low)
        case "norm":
            return paddle.nn.ClipGradByNorm(clip.limit)
    return paddle.nn.ClipGradByGlobalNorm(clip.limit)


def parameter(value: np.ndarray, **attr: Any) -> Any:
    """A parameter that starts at `value`."""
    attr["initializer"] = paddle.nn.initializer.Assign(value)
    return paddle.create_parameter(list(value.shape), value.dtype.name, attr=paddle.ParamAttr(**attr))


class Paddle:
    """An optimizer of paddle.optimizer; names are its own, as it takes each only once."""

    def __init__(self, conf: Configuration):
        self.conf = conf
        self.params = {
            name: parameter(
                value,
                **conf.params[name].policies | {"regularizer": as_regularizer(conf.params[name].regularizer)},
            )
            for name, value in conf.values().items()
        }
        groups = [self.translated(group) for group in conf.groups or ()]
        rule = getattr(paddle.optimizer, conf.rule)
        self.opt = rule(parameters=groups or list(self.params.values()), **self.translated(conf.options))

    def translated(self, options: Mapping[str, Any]) -> dict[str, Any]:
        result = dict(options)
        if "params" in options:
            result["params"] = [self.params[name] for name in options["params"]]
        if "weight_decay" in options:
            result["weight_decay"] = as_weight_decay(options["weight_decay"])
        if "grad_clip" in options:
            result["grad_clip"] = as_clip(options["grad_clip"])
        return result

    def set_lr(self, value: float) -> None:
        self.opt.set_lr(value)

    def edit(self, name: str, key: str, value: Any) -> None:
        param = self.params[name]
        if key == "learning_rate":
            param.optimize_attr["learning_rate"] = value
        else:
            setattr(param, key, as_regularizer(value) if key == "regularizer" else value)

    def step(self, grads: Mapping[str, np.ndarray | None]) -> None:
        for name, grad in grads.items():
            self.params[name].grad = None if grad is None else paddle.to_tensor(grad)
        self.opt.step()

    def values(self) -> dict[str, np.ndarray]:
        state = self.opt.state_dict()
        result = {}
        for name, param in self.params.items():
            result[name] = param.numpy()
            for key, tensor in state.items():
                accumulator = key.removeprefix(f"{param.name}_").removesuffix("_0")
                if accumulator in ("velocity", "moment1", "moment2", "moment2_max"):
                    result[f"{name}.{accumulator}"] = tensor.numpy()
        return result
