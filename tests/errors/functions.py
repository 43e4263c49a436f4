"""Wrong calls of the functions on arrays and on any object, and names that are not there."""

from types import SimpleNamespace

import numpy as np

import nbopt as nb
from nbopt.compat import paddle
from nbopt.compat.jittor import weightnorm as jittor
from nbopt.errors import HyperparameterError, ParameterError

V, G = np.ones((2, 3)), np.ones(2)


class Layer:
    """Any object: `compat` takes them all."""


def layer(**attributes):
    made = Layer()
    vars(made).update({"weight": np.ones((2, 3), np.float32), **attributes})
    return made


def hooked():
    return paddle.weight_norm(layer())


ARRAYS = {
    "norm-text": (lambda m: nb.norm("a"), TypeError, "norm takes real numbers, got dtype <U1"),
    "norm-complex": (lambda m: nb.norm([1j]), TypeError, "norm takes real numbers, got dtype complex128"),
    "norm-none": (lambda m: nb.norm(None), TypeError, "norm takes real numbers, got dtype object"),
    "norm-ragged": (lambda m: nb.norm([[1], [2, 3]]), ParameterError, "array of norm is no array of numbers"),
    "norm-buffer": (
        lambda m: nb.norm(m.params),
        TypeError,
        "norm takes an array, got ParameterBuffer; write params.to_vector()",
    ),
    "norm-dim-beyond": (
        lambda m: nb.norm([1.0], 1),
        ParameterError,
        "dim is the kept axis, 0 <= dim < 1, got 1",
    ),
    "norm-dim-negative": (
        lambda m: nb.norm([1.0], -1),
        ParameterError,
        "dim is the kept axis, 0 <= dim < 1, got -1",
    ),
    "norm-dim-float": (lambda m: nb.norm([1.0], 0.0), TypeError, "dim must be an integer, got float 0.0"),
    "norm-axis": (
        lambda m: nb.norm([1.0], axis=0),
        TypeError,
        "norm got an unknown argument 'axis'; dim is the axis that is kept",
    ),
    "norm-nothing": (
        lambda m: nb.norm(),
        TypeError,
        "norm: missing a required argument: 'array'; write norm(array, dim=...)",
    ),
    "clip-grad-norm-nothing": (
        lambda m: nb.clip_grad_norm_(m.params),
        TypeError,
        "clip_grad_norm_: missing a required argument: 'max_norm'",
    ),
    "clip-grad-norm-swapped": (
        lambda m: nb.clip_grad_norm_(1.0, m.params),
        TypeError,
        "max_norm must be a number, got ParameterBuffer",
    ),
    "clip-grad-norm-negative": (
        lambda m: nb.clip_grad_norm_(m.params, -1),
        HyperparameterError,
        "max_norm must be a number >= 0, got -1.0",
    ),
    "clip-grad-norm-type": (
        lambda m: nb.clip_grad_norm_(m.params, 1, 0),
        HyperparameterError,
        "norm_type must be a number > 0, got 0.0",
    ),
    "clip-grad-norm-arrays": (
        lambda m: nb.clip_grad_norm_([V], 1),
        TypeError,
        "parameters must be Parameter objects, got ndarray; write params[name]",
    ),
    "clip-grad-norm-part": (
        lambda m: nb.clip_grad_norm_(m.normed["w"].weight_v, 1),
        ParameterError,
        "the gradient of 'w_v' is computed; clip that of its weight",
    ),
    "clip-grad-norm-misspelt": (
        lambda m: nb.clip_grad_norm_(m.params, clip_norm=1),
        TypeError,
        "clip_grad_norm_ got an unknown argument 'clip_norm'; did you mean",
    ),
    "clip-grad-value": (
        lambda m: nb.clip_grad_value_(m.params, -1),
        HyperparameterError,
        "clip_value must be a number >= 0, got -1.0",
    ),
    "clip-list": (
        lambda m: nb.ClipGradByNorm(1)([V]),
        TypeError,
        "grads must be a mapping of names to arrays, got list",
    ),
    "clip-need-clip": (
        lambda m: nb.ClipGradByNorm(1)({"w": V}, {"v": True}),
        ParameterError,
        "need_clip names 'v': ... w",
    ),
    "clip-need-clip-number": (
        lambda m: nb.ClipGradByNorm(1)({"w": V}, {"w": 1}),
        TypeError,
        "need_clip of 'w' must be True or False, got int 1",
    ),
    "clip-text": (
        lambda m: nb.ClipGradByValue(1)({"w": "a"}),
        TypeError,
        "gradient of 'w' must hold real numbers, got dtype <U1",
    ),
    "weight-norm-dim-missing": (
        lambda m: nb.weight_norm(V, G),
        TypeError,
        "weight_norm: missing a required argument: 'dim'; write weight_norm(v, g, dim)",
    ),
    "weight-norm-dim-negative": (
        lambda m: nb.weight_norm(V, G, -1),
        ParameterError,
        "weight_norm got dim=-1. dim is the axis that is kept, 0 <= dim < rank",
    ),
    "weight-norm-dim-beyond": (
        lambda m: nb.weight_norm(V, G, 2),
        ParameterError,
        "weight_norm: v of shape (2, 3) has no axis dim=2",
    ),
    "weight-norm-g": (
        lambda m: nb.weight_norm(V, np.ones(3), 0),
        ParameterError,
        "g of weight_norm must have shape (2, 1) or (2,) for v of shape (2, 3) and dim=0, got (3,)",
    ),
    "weight-norm-scalar": (
        lambda m: nb.weight_norm(1.0, 1.0, None),
        ParameterError,
        "v of weight_norm must have at least one axis, got a number",
    ),
    "weight-norm-complex": (
        lambda m: nb.weight_norm(V * 1j, G, 0),
        TypeError,
        "v of weight_norm must hold real numbers, got dtype complex128",
    ),
    "weight-norm-attribute": (
        lambda m: nb.weight_norm(layer(), "weight", 0),
        TypeError,
        "weight_norm takes arrays v and g, got Layer and 'weight'; ... compat.paddle",
    ),
    "weight-norm-backward-dw": (
        lambda m: nb.weight_norm_backward(V, G, G, 0),
        ParameterError,
        "dw of weight_norm_backward must have the shape of v, (2, 3), got (2,)",
    ),
}

OBJECTS = {
    "paddle-no-attribute": (
        lambda m: paddle.weight_norm(layer(), "bias"),
        KeyError,
        "Layer has no attribute 'bias'",
    ),
    "paddle-dim": (
        lambda m: paddle.weight_norm(layer(), dim=2),
        ParameterError,
        "dim is the axis that is kept, -2 <= dim < 2 for weight of Layer, or None; got 2",
    ),
    "paddle-dim-text": (lambda m: paddle.weight_norm(layer(), dim="0"), TypeError, "dim ... got ... '0'"),
    "paddle-twice": (
        lambda m: paddle.weight_norm(hooked()),
        RuntimeError,
        "cannot register two weight_norm hooks on the same attribute 'weight'",
    ),
    "paddle-array": (lambda m: paddle.weight_norm(V, G, 0), TypeError, "nbopt.weight_norm"),
    "paddle-integers": (
        lambda m: paddle.weight_norm(layer(weight=np.ones(2, int))),
        TypeError,
        "weight of Layer ... float32 or float64 ... int64",
    ),
    "paddle-taken": (
        lambda m: paddle.weight_norm(layer(weight_g=1)),
        ParameterError,
        "Layer has an attribute weight_g, which weight norm would overwrite",
    ),
    "paddle-no-class": (
        lambda m: paddle.weight_norm(SimpleNamespace(weight=V)),
        TypeError,
        "weight norm needs an object whose class is written in Python, got SimpleNamespace",
    ),
    "paddle-remove": (
        lambda m: paddle.remove_weight_norm(layer()),
        ParameterError,
        "weight_norm of 'weight' not found in Layer",
    ),
    "paddle-assign": (
        lambda m: setattr(hooked(), "weight", V.T),
        ParameterError,
        "weight of Layer has weight norm and keeps its shape (2, 3), got (3, 2)",
    ),
    "jittor-no-attribute": (
        lambda m: jittor.weight_norm(layer(), "bias", -1),
        AttributeError,
        "no attribute 'bias'",
    ),
    "jittor-dim": (
        lambda m: jittor.weight_norm(layer(), "weight", 5),
        ParameterError,
        "dim is the axis that is reduced, -2 <= dim < 2 for weight of shape (2, 3), got 5",
    ),
    "jittor-twice": (
        lambda m: jittor.weight_norm(jittor.weight_norm(layer(), "weight", -1), "weight", -1),
        RuntimeError,
        "cannot register two weight_norm hooks on one module: Layer has",
    ),
    "jittor-remove": (
        lambda m: jittor.remove_weight_norm(layer()),
        ParameterError,
        "weight_norm of 'weight' not found in Layer",
    ),
}

NAMES = {
    "name-elsewhere": (
        lambda m: nb.Momentum,
        AttributeError,
        "module 'nbopt' has no attribute 'Momentum'; it is nbopt.optimizer.Momentum",
    ),
    "name-of-a-schedule": (lambda m: nb.StepDecay, AttributeError, "it is nbopt.optimizer.lr.StepDecay"),
    "name-unknown": (lambda m: nb.momentun, AttributeError, "module 'nbopt' has no attribute 'momentun'"),
    "name-in-paddle": (lambda m: paddle.ParamAttr, AttributeError, "it is nbopt.ParamAttr"),
    "resume-no-run": (
        lambda m: nb.testing.assert_resume_exact(lambda: 3, 1),
        TypeError,
        "make_run must return (step, objects), with step a function, got 3",
    ),
    "resume-shared": (
        lambda m: nb.testing.assert_resume_exact(lambda: (int, m.params), 1),
        TypeError,
        "make_run must make everything anew, but two runs share one ParameterBuffer",
    ),
}

TABLE = {**ARRAYS, **OBJECTS, **NAMES}
