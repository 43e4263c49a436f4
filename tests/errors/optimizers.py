"""Wrong arguments of optimizers, and of their groups."""

import numpy as np

import nbopt as nb
from nbopt.errors import HyperparameterError, ParameterError
from tests.errors import INF, NAN

Momentum, SGD, Adam, AdamW = nb.optimizer.Momentum, nb.optimizer.SGD, nb.optimizer.Adam, nb.optimizer.AdamW
Decay = nb.regularizer.L2Decay


def group(m, **values):
    return Momentum(0.1, parameters=[{"params": m.params, **values}])


TABLE = {
    "momentum-lr": (
        lambda m: Momentum(lr=0.1, parameters=m.params),
        TypeError,
        "Momentum got an unknown argument 'lr'; did you mean 'learning_rate'? ... momentum, parameters",
    ),
    "momentum-misspelt": (
        lambda m: Momentum(momentun=0.9, parameters=m.params),
        TypeError,
        "'momentun'; did you mean 'momentum'?",
    ),
    "momentum-nesterov": (
        lambda m: Momentum(nesterov=True, parameters=m.params),
        TypeError,
        "'nesterov'; did you mean 'use_nesterov'?",
    ),
    "momentum-params": (
        lambda m: Momentum(0.1, params=m.params),
        TypeError,
        "'params'; did you mean 'parameters'?",
    ),
    "momentum-decay": (
        lambda m: Momentum(decay=0.1, parameters=m.params),
        TypeError,
        "'decay'; did you mean 'weight_decay'?",
    ),
    "momentum-clip": (
        lambda m: Momentum(clip=None, parameters=m.params),
        TypeError,
        "'clip'; did you mean 'grad_clip'?",
    ),
    "momentum-dampening": (
        lambda m: Momentum(dampening=0.0, parameters=m.params),
        TypeError,
        "Momentum got an unknown argument 'dampening'",
    ),
    "momentum-twice": (
        lambda m: Momentum(0.1, learning_rate=0.1),
        TypeError,
        "Momentum: multiple values for argument 'learning_rate'",
    ),
    "momentum-too-many": (
        lambda m: Momentum(*range(11)),
        TypeError,
        "Momentum: too many positional arguments; write Momentum(learning_rate=...",
    ),
    "momentum-buffer-first": (
        lambda m: Momentum(m.params, 0.1),
        TypeError,
        "Momentum got parameters in the place of learning_rate: write Momentum(..., parameters=params)",
    ),
    "momentum-buffer-second": (
        lambda m: Momentum(0.1, m.params),
        TypeError,
        "Momentum got parameters in the place of momentum: write Momentum(..., parameters=params)",
    ),
    "momentum-list-first": (
        lambda m: Momentum([m.w, m.b], 0.1),
        TypeError,
        "Momentum got parameters in the place of learning_rate",
    ),
    "sgd-groups-first": (
        lambda m: SGD([{"params": m.w}], 0.1),
        TypeError,
        "SGD got parameters in the place of learning_rate",
    ),
    "sgd-parameter-first": (
        lambda m: SGD(m.w),
        TypeError,
        "SGD got parameters in the place of learning_rate",
    ),
    "adam-buffer-second": (
        lambda m: Adam(0.1, m.params),
        TypeError,
        "Adam got parameters in the place of beta1: write Adam(..., parameters=params)",
    ),
    "adamw-buffer-first": (
        lambda m: AdamW(m.params, 0.1),
        TypeError,
        "AdamW got parameters in the place of learning_rate",
    ),
    "momentum-no-parameters": (
        lambda m: Momentum(0.1),
        TypeError,
        "Momentum needs parameters: write Momentum(..., parameters=params)",
    ),
    "rate-negative": (
        lambda m: SGD(-0.1, m.params),
        HyperparameterError,
        "SGD learning_rate must be a finite number >= 0, got -0.1",
    ),
    "rate-nan": (
        lambda m: SGD(NAN, m.params),
        HyperparameterError,
        "SGD learning_rate must be a finite number >= 0, got nan",
    ),
    "rate-inf": (
        lambda m: SGD(INF, m.params),
        HyperparameterError,
        "SGD learning_rate must be a finite number >= 0, got inf",
    ),
    "rate-text": (
        lambda m: SGD("0.1", m.params),
        TypeError,
        "SGD learning_rate must be a number, got str '0.1'; a schedule of nbopt.optimizer.lr is legal too",
    ),
    "rate-true": (
        lambda m: SGD(True, m.params),
        TypeError,
        "SGD learning_rate must be a number, got bool True",
    ),
    "rate-function": (
        lambda m: SGD(abs, m.params),
        TypeError,
        "SGD learning_rate must be a number ... LambdaDecay is for a function",
    ),
    "rate-beyond-float32": (
        lambda m: SGD(1e39, m.params),
        HyperparameterError,
        "SGD learning_rate, 1e+39 rounded to float32, ... finite number >= 0, got inf",
    ),
    "momentum-one": (
        lambda m: Momentum(0.1, 1.0, m.params),
        HyperparameterError,
        "Momentum momentum must be a finite number >= 0 and < 1, got 1.0",
    ),
    "momentum-negative": (
        lambda m: Momentum(0.1, -0.5, m.params),
        HyperparameterError,
        "Momentum momentum ... >= 0 and < 1, got -0.5",
    ),
    "momentum-rounds-to-one": (
        lambda m: Momentum(0.1, 1 - 1e-12, m.params),
        HyperparameterError,
        "Momentum momentum ... rounded to float32, ... < 1, got 1.0",
    ),
    "momentum-none": (
        lambda m: Momentum(0.1, None, m.params),
        TypeError,
        "Momentum momentum must be a number, got NoneType None",
    ),
    "nesterov-number": (
        lambda m: Momentum(0.1, 0.9, m.params, 1),
        TypeError,
        "Momentum use_nesterov must be True or False, got int 1",
    ),
    "rescale-nan": (
        lambda m: Momentum(rescale_grad=NAN, parameters=m.params),
        HyperparameterError,
        "Momentum rescale_grad must be a finite number, got nan",
    ),
    "decay-negative": (
        lambda m: SGD(0.1, m.params, -0.1),
        HyperparameterError,
        "SGD weight_decay must be a finite number >= 0, got -0.1",
    ),
    "decay-text": (
        lambda m: SGD(0.1, m.params, "l2"),
        TypeError,
        "SGD weight_decay must be None, a number (L2), L1Decay or L2Decay, got str 'l2'",
    ),
    "clip-number": (
        lambda m: SGD(0.1, m.params, grad_clip=1.0),
        TypeError,
        "SGD grad_clip must be None, ClipGradByValue, ClipGradByNorm or ClipGradByGlobalNorm, got float 1.0",
    ),
    "clip-class": (
        lambda m: SGD(0.1, m.params, grad_clip=nb.ClipGradByNorm),
        TypeError,
        "SGD grad_clip must be None, ClipGradByValue ... got type",
    ),
    "name-number": (lambda m: SGD(0.1, m.params, name=3), TypeError, "SGD name must be a string, got int 3"),
    "guard-unknown": (
        lambda m: SGD(0.1, m.params, nonfinite="ignore"),
        HyperparameterError,
        "SGD nonfinite must be one of propagate, skip, raise, got 'ignore'",
    ),
    "beta-one": (
        lambda m: Adam(beta1=1.0, parameters=m.params),
        HyperparameterError,
        "Adam beta1 must be a finite number >= 0 and < 1, got 1.0",
    ),
    "betas": (
        lambda m: Adam(betas=(0.9, 0.99), parameters=m.params),
        TypeError,
        "Adam got an unknown argument 'betas'; did you mean 'beta",
    ),
    "epsilon-negative": (
        lambda m: Adam(epsilon=-1e-8, parameters=m.params),
        HyperparameterError,
        "Adam epsilon must be a finite number >= 0, got -1e-08",
    ),
    "eps": (
        lambda m: AdamW(eps=1e-8, parameters=m.params),
        TypeError,
        "AdamW got an unknown argument 'eps'; did you mean 'epsilon'?",
    ),
    "amsgrad-text": (
        lambda m: Adam(amsgrad="yes", parameters=m.params),
        TypeError,
        "Adam amsgrad must be True or False, got str 'yes'",
    ),
    "adamw-ratio": (
        lambda m: AdamW(lr_ratio=0.5, parameters=m.params),
        TypeError,
        "AdamW lr_ratio must be a function of a parameter, got 0.5",
    ),
    "adamw-ratio-negative": (
        lambda m: AdamW(lr_ratio=lambda p: -1, parameters=m.params),
        HyperparameterError,
        "AdamW lr_ratio of 'w' must be a finite number >= 0, got -1.0",
    ),
    "adamw-decay-object": (
        lambda m: AdamW(weight_decay=Decay(0.1), parameters=m.params),
        TypeError,
        "AdamW weight_decay must be a number, got L2Decay",
    ),
    "names": (
        lambda m: SGD(0.1, ["w", "b"]),
        TypeError,
        "parameters must be Parameter objects, got str; write params[name]",
    ),
    "arrays": (
        lambda m: SGD(0.1, {"w": np.ones(3)}),
        TypeError,
        "SGD takes groups as a list ... ParameterBuffer.from_arrays(arrays)",
    ),
    "set": (
        lambda m: SGD(0.1, {m.w}),
        TypeError,
        "parameters must be a ParameterBuffer or a list of Parameter, got set",
    ),
    "empty": (lambda m: SGD(0.1, []), ParameterError, "SGD got no parameters"),
    "two-buffers": (
        lambda m: SGD(0.1, [m.w, m.other["b"]]),
        ParameterError,
        "SGD got parameters of 2 buffers ('w', 'b', ...); one optimizer moves one buffer",
    ),
    "group-misspelt": (
        lambda m: group(m, momentun=0.5),
        TypeError,
        "Momentum group 0: unknown key 'momentun'; did you mean 'momentum'? Legal keys:",
    ),
    "group-lr": (
        lambda m: group(m, lr=0.5),
        TypeError,
        "Momentum group 0: unknown key 'lr'; did you mean 'learning_rate', a multiplier",
    ),
    "group-rate-negative": (
        lambda m: group(m, learning_rate=-5),
        HyperparameterError,
        "Momentum group 0 learning_rate must be a finite number >= 0, got -5.0",
    ),
    "group-momentum-nan": (
        lambda m: group(m, momentum=NAN),
        HyperparameterError,
        "Momentum group 0 momentum ... >= 0 and < 1, got nan",
    ),
    "group-clip": (
        lambda m: group(m, grad_clip=1),
        TypeError,
        "Momentum group 0 grad_clip must be None, ClipGradByValue ... got int 1",
    ),
    "group-without-params": (
        lambda m: SGD(0.1, [{"learning_rate": 1.0}]),
        TypeError,
        "SGD group 0 has no 'params'",
    ),
    "group-mixed": (
        lambda m: SGD(0.1, [{"params": m.w}, m.b]),
        TypeError,
        "SGD: parameters mixes groups with Parameter",
    ),
    "group-twice": (
        lambda m: SGD(0.1, [{"params": m.w}, {"params": m.params}]),
        ParameterError,
        "parameter 'w' is in group 0 and in group 1",
    ),
    "group-clips-differ": (
        lambda m: SGD(
            0.1,
            [
                {"params": p, "grad_clip": nb.ClipGradByGlobalNorm(limit, "one")}
                for p, limit in ((m.w, 1.0), (m.b, 2.0))
            ],
        ),
        HyperparameterError,
        "'one' ... 1.0 ... 2.0",
    ),
}
