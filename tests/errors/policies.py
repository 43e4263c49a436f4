"""Wrong arguments of attributes, initializers, penalties and clips."""

import numpy as np

import nbopt as nb
from nbopt.errors import HyperparameterError, ParameterError
from tests.errors import INF, NAN

Buffer, Attr, Normed, init = nb.ParameterBuffer, nb.ParamAttr, nb.WeightNormParamAttr, nb.initializer
ONE = np.ones(1, np.float32)


def create(*args, **kwargs):
    return Buffer(seed=0).create_parameter(*args, **kwargs)


ATTRIBUTES = {
    "attr-lr": (
        lambda m: Attr(lr=0.1),
        TypeError,
        "ParamAttr got an unknown argument 'lr'; did you mean 'learning_rate'?",
    ),
    "attr-l2": (
        lambda m: Attr(l2=0.1),
        TypeError,
        "ParamAttr got an unknown argument 'l2'; did you mean 'regularizer'?",
    ),
    "attr-weight-decay": (
        lambda m: Attr(weight_decay=0.1),
        TypeError,
        "'weight_decay'; did you mean 'regularizer'?",
    ),
    "attr-requires-grad": (
        lambda m: Attr(requires_grad=False),
        TypeError,
        "'requires_grad'; did you mean 'trainable'?",
    ),
    "attr-stop-gradient": (
        lambda m: Attr(stop_gradient=True),
        TypeError,
        "'stop_gradient'; write trainable, its opposite",
    ),
    "attr-gradient-clip": (
        lambda m: Attr(gradient_clip=1),
        TypeError,
        "'gradient_clip'; give the clip to the optimizer (grad_clip=...)",
    ),
    "attr-dim": (lambda m: Attr(dim=0), TypeError, "ParamAttr ... 'dim'; WeightNormParamAttr has a dim"),
    "attr-too-many": (
        lambda m: Attr(*[None] * 8),
        TypeError,
        "ParamAttr: too many positional arguments; write ParamAttr(name=..., initializer=...",
    ),
    "attr-rate-negative": (
        lambda m: Attr(learning_rate=-1.0),
        HyperparameterError,
        "ParamAttr learning_rate ... finite number >= 0, got -1.0",
    ),
    "attr-rate-nan": (
        lambda m: Attr(learning_rate=NAN),
        HyperparameterError,
        "ParamAttr learning_rate ... finite number >= 0, got nan",
    ),
    "attr-rate-text": (
        lambda m: Attr(learning_rate="1"),
        TypeError,
        "ParamAttr learning_rate must be a number, got str '1'",
    ),
    "attr-regularizer-number": (
        lambda m: Attr(regularizer=0.1),
        TypeError,
        "ParamAttr regularizer must be L1Decay or L2Decay, got 0.1",
    ),
    "attr-initializer-array": (
        lambda m: Attr(initializer=[1.0]),
        TypeError,
        "ParamAttr initializer must be an Initializer, got [1.0]; ... Assign(values)",
    ),
    "attr-trainable-none": (
        lambda m: Attr(trainable=None),
        TypeError,
        "ParamAttr trainable must be True or False, got NoneType None",
    ),
    "attr-need-clip-number": (
        lambda m: Attr(need_clip=0),
        TypeError,
        "ParamAttr need_clip must be True or False, got int 0",
    ),
    "attr-average-text": (
        lambda m: Attr(do_model_average="no"),
        TypeError,
        "ParamAttr do_model_average must be True or False, got str 'no'",
    ),
    "attr-name-number": (lambda m: Attr(name=1), TypeError, "ParamAttr name must be a string, got int 1"),
    "normed-dim-negative": (
        lambda m: Normed(dim=-1),
        ParameterError,
        "WeightNormParamAttr got dim=-1. dim is the axis that is kept, 0 <= dim < rank, or None",
    ),
    "normed-dim-float": (
        lambda m: Normed(dim=0.0),
        TypeError,
        "WeightNormParamAttr dim must be an integer, got float 0.0",
    ),
    "normed-misspelt": (
        lambda m: Normed(axis=0),
        TypeError,
        "WeightNormParamAttr got an unknown argument 'axis'",
    ),
}

VALUES = {
    "constant-text": (lambda m: init.Constant("1"), TypeError, "value must be a number, got str '1'"),
    "constant-nan": (
        lambda m: init.Constant(NAN),
        HyperparameterError,
        "value must be a finite number, got nan",
    ),
    "constant-misspelt": (
        lambda m: init.Constant(val=1),
        TypeError,
        "Constant got an unknown argument 'val'; did you mean 'value'?",
    ),
    "normal-std": (
        lambda m: init.Normal(std=-1),
        HyperparameterError,
        "std must be a finite number >= 0, got -1.0",
    ),
    "normal-misspelt": (
        lambda m: init.Normal(stddev=1),
        TypeError,
        "Normal got an unknown argument 'stddev'; did you mean 'std'?",
    ),
    "uniform-order": (
        lambda m: init.Uniform(1, -1),
        HyperparameterError,
        "high must be >= low ... low=1.0, high=-1.0",
    ),
    "truncated-order": (
        lambda m: init.TruncatedNormal(a=1, b=0),
        HyperparameterError,
        "b must be >= a, got ... a=1.0, b=0.0",
    ),
    "xavier-fan": (lambda m: init.XavierNormal(fan_in=-1), HyperparameterError, "fan_in ... >= 0, got -1.0"),
    "xavier-gain": (
        lambda m: init.XavierUniform(gain="relu"),
        TypeError,
        "gain must be a number, got str 'relu'",
    ),
    "kaiming-mode": (
        lambda m: init.KaimingNormal(mode="fan"),
        HyperparameterError,
        "mode 'fan' is unknown; ... fan_in, fan_out",
    ),
    "kaiming-nonlinearity": (
        lambda m: init.KaimingUniform(nonlinearity="rely"),
        HyperparameterError,
        "nonlinearity 'rely' is unknown; did you mean 'relu'?",
    ),
    "kaiming-fan-out": (
        lambda m: init.KaimingNormal(fan_in=3, mode="fan_out"),
        HyperparameterError,
        "fan_in must be None with mode 'fan_out', got 3",
    ),
    "assign-nothing": (
        lambda m: init.Assign(),
        TypeError,
        "Assign: missing a required argument: 'value'; write Assign(value)",
    ),
    "assign-shape": (
        lambda m: create([2], "w", init.Assign([1.0])),
        ParameterError,
        "parameter 'w': ... (1,) ... (2,)",
    ),
    "dirac-groups": (lambda m: init.Dirac(groups=0), HyperparameterError, "groups must be >= 1, got 0"),
    "dirac-rank": (lambda m: create([2, 2], "w", init.Dirac()), ParameterError, "parameter 'w': ... (2, 2)"),
    "orthogonal-rank": (
        lambda m: create([2], "w", init.Orthogonal()),
        ParameterError,
        "parameter 'w': ... (2,)",
    ),
    "orthogonal-gain": (
        lambda m: init.Orthogonal(INF),
        HyperparameterError,
        "gain must be a finite number, got inf",
    ),
    "gain-unknown": (
        lambda m: init.calculate_gain("swish"),
        HyperparameterError,
        "nonlinearity 'swish' is unknown; ... relu, tanh",
    ),
    "global-initializer": (
        lambda m: init.set_global_initializer(0.1),
        TypeError,
        "weight_init ... Initializer ... 0.1",
    ),
    "initializer-base": (lambda m: init.Initializer(), TypeError, "abstract class Initializer ... draw"),
    "l1-negative": (
        lambda m: nb.regularizer.L1Decay(-1),
        HyperparameterError,
        "L1Decay coeff ... finite number >= 0, got -1.0",
    ),
    "l2-nan": (
        lambda m: nb.regularizer.L2Decay(NAN),
        HyperparameterError,
        "L2Decay coeff ... finite number >= 0, got nan",
    ),
    "l2-none": (
        lambda m: nb.regularizer.L2Decay(None),
        TypeError,
        "L2Decay coeff must be a number, got NoneType None",
    ),
    "l2-misspelt": (
        lambda m: nb.regularizer.L2Decay(coef=1),
        TypeError,
        "L2Decay got an unknown argument 'coef'; did you mean 'coeff'?",
    ),
    "clip-global-negative": (
        lambda m: nb.ClipGradByGlobalNorm(-1),
        HyperparameterError,
        "ClipGradByGlobalNorm clip_norm must be a number >= 0, got -1.0",
    ),
    "clip-global-text": (
        lambda m: nb.ClipGradByGlobalNorm("1"),
        TypeError,
        "ClipGradByGlobalNorm clip_norm must be a number, got str '1'",
    ),
    "clip-global-name": (
        lambda m: nb.ClipGradByGlobalNorm(1, 2),
        TypeError,
        "ClipGradByGlobalNorm group_name must be a string, got int 2",
    ),
    "clip-global-nothing": (
        lambda m: nb.ClipGradByGlobalNorm(),
        TypeError,
        "ClipGradByGlobalNorm: missing ... 'clip_norm'; write ClipGradByGlobalNorm(clip_norm,",
    ),
    "clip-global-max-norm": (
        lambda m: nb.ClipGradByGlobalNorm(max_norm=1),
        TypeError,
        "'max_norm'; did you mean 'clip_norm'?",
    ),
    "clip-norm-nan": (
        lambda m: nb.ClipGradByNorm(NAN),
        HyperparameterError,
        "ClipGradByNorm clip_norm must be a number >= 0, got nan",
    ),
    "clip-value-order": (
        lambda m: nb.ClipGradByValue(-1, 1),
        HyperparameterError,
        "ClipGradByValue needs min <= max, got min=1.0 > max=-1.0",
    ),
    "clip-value-negative": (
        lambda m: nb.ClipGradByValue(-1),
        HyperparameterError,
        "ClipGradByValue max must be a number >= 0, got -1.0",
    ),
    "clip-value-too-many": (
        lambda m: nb.ClipGradByValue(1, 2, 3),
        TypeError,
        "ClipGradByValue: too many positional arguments; write ClipGradByValue(max, min=...)",
    ),
}

TABLE = {**ATTRIBUTES, **VALUES}
