"""Rates, coefficients, options and groups that an optimizer is given."""

import math

import numpy as np
import pytest

import nbopt as nb
from nbopt.errors import HyperparameterError, ParameterError
from tests.hostile import F32, buffer, pair, refused, same

SGD, Momentum = nb.optimizer.SGD, nb.optimizer.Momentum


def bad_rate(value, error=HyperparameterError):
    """At construction, in a setter, in a group and in an attribute."""
    params = pair()
    refused(lambda: SGD(value, params), error, "SGD learning_rate")
    assert not params.is_sealed
    opt = SGD(0.5, params)
    refused(lambda: opt.set_lr(value), error, "SGD learning_rate")
    assert opt.get_lr() == 0.5
    bad_in_group("learning_rate", value, error)
    refused(lambda: nb.ParamAttr(learning_rate=value), error, "learning_rate")


def bad_in_group(key, value, error=HyperparameterError):
    params = pair()
    refused(lambda: Momentum(0.1, 0.9, [{"params": params["w"], key: value}]), error, f"group 0 {key}")
    opt = Momentum(0.1, 0.9, params)
    before = dict(opt.param_groups[0])
    refused(lambda: opt.param_groups[0].__setitem__(key, value), error, f"group 0 {key}")
    assert dict(opt.param_groups[0]) == before


def rate_negative():
    bad_rate(-0.1)


def rate_nan():
    bad_rate(math.nan)


def rate_infinite():
    bad_rate(math.inf)


def rate_a_text():
    bad_rate("0.1", TypeError)


def rate_a_flag():
    bad_rate(True, TypeError)
    bad_rate(np.True_, TypeError)


def rate_none():
    bad_rate(None, TypeError)


def rate_set_to_nan():
    opt = SGD(0.5, pair())
    refused(lambda: opt.set_lr(math.nan), HyperparameterError, "learning_rate", "nan")
    opt.step({"w": [1.0, 1.0]})
    same(opt.parameters[0].value, F32([0.5, 1.5]))


def bad_momentum(value):
    refused(
        lambda: Momentum(0.1, value, pair()), HyperparameterError, "momentum", ">= 0 and < 1", repr(value)
    )
    bad_in_group("momentum", value)


def momentum_above_one():
    bad_momentum(1.5)
    bad_momentum(1.0)


def momentum_negative():
    bad_momentum(-0.5)


def momentum_nan():
    bad_momentum(math.nan)


def bad_decay(value):
    refused(lambda: SGD(0.1, pair(), weight_decay=value), HyperparameterError, "weight_decay")
    bad_in_group("weight_decay", value)
    for kind in (nb.regularizer.L1Decay, nb.regularizer.L2Decay):
        refused(lambda kind=kind: kind(value), HyperparameterError, kind.__name__)


def decay_negative():
    bad_decay(-0.1)


def decay_nan():
    bad_decay(math.nan)


def decay_infinite():
    bad_decay(math.inf)


def nesterov_without_momentum():
    """Legal, and gradient descent."""
    params, plain = pair(), pair()
    for opt in (Momentum(0.1, 0.0, params, use_nesterov=True), SGD(0.1, plain)):
        for _ in range(3):
            opt.step({"w": [1.0, -2.0]})
    assert params.fingerprint() == plain.fingerprint()


def unknown_option():
    with pytest.raises(TypeError, match="dampening"):
        Momentum(0.1, 0.9, pair(), dampening=math.nan)
    refused(lambda: nb.Optimizer(_decay, 0.1, pair(), dampening=math.nan), TypeError, "dampening")


def _decay(param, grad, lr):
    return param - lr * grad


def no_parameters():
    for none in ([], (), nb.ParameterBuffer(), [{"params": []}]):
        refused(lambda p=none: SGD(0.1, p), ParameterError, "no parameters")
    refused(lambda: SGD(0.1), TypeError, "parameters=params")


def twice_in_a_list():
    """Counts once, as in a model that shares its weights."""
    params = buffer(w=[1.0])
    opt = SGD(0.5, [params["w"], params["w"]])
    opt.step({"w": [1.0]})
    same(params["w"].value, F32([0.5]))


def in_two_groups():
    params = pair()
    groups = [{"params": [params["w"]]}, {"params": [params["w"]]}]
    refused(lambda: SGD(0.1, groups), ParameterError, "'w'", "group 0", "group 1")
    opt = SGD(0.1, params)
    refused(lambda: opt.add_param_group({"params": params["w"]}), ParameterError, "'w'")


def misspelt_group_key():
    for key, near in (("momentun", "'momentum'"), ("lr", "'learning_rate'"), ("nesterov", "use_nesterov")):
        group = {"params": pair()["w"], key: 0.5}
        refused(lambda g=group: Momentum(0.1, 0.9, [g]), TypeError, f"'{key}'", near)
    opt = Momentum(0.1, 0.9, pair())
    refused(lambda: opt.param_groups[0].__setitem__("momentun", 0.5), TypeError, "momentun")


def group_out_of_range():
    bad_in_group("learning_rate", -5)
    bad_in_group("momentum", math.nan)


def group_is_obeyed():
    params = buffer("float64", a=[0.0], b=[0.0])
    opt = Momentum(0.1, 0.9, [{"params": params["a"], "momentum": 0.0}, {"params": params["b"]}])
    for _ in range(2):
        opt.step({"a": [1.0], "b": [1.0]})
    same(params.to_vector(), np.array([-0.1 - 0.1, -0.1 - 0.1 * 1.9]))


def attribute():
    refused(lambda: nb.ParamAttr(learning_rate=-3), HyperparameterError, "learning_rate", "-3")
    refused(lambda: nb.ParamAttr(need_clip="no"), TypeError, "need_clip", "True or False", "'no'")
    param = pair()["w"]
    refused(lambda: setattr(param, "learning_rate", -3), HyperparameterError, "learning_rate")
    refused(lambda: setattr(param, "need_clip", "no"), TypeError, "need_clip")
    assert (param.learning_rate, param.need_clip) == (1.0, True)
