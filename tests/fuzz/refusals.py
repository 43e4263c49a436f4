"""Calls that must be refused, and change nothing."""

import numpy as np

import nbopt as nb
from nbopt.errors import HyperparameterError, ParameterError, StateDictError
from tests.fuzz.model import SHAPES
from tests.fuzz.world import AVERAGES, NAMED, NAN


def _assign(target, key, value):
    return lambda: setattr(target, key, value)


def _tampered(machine, key, value):
    """A state of the optimizer with one entry that is wrong."""
    opt = machine.world.opt
    return lambda: opt.set_state_dict({**opt.state_dict(), key: value})


def _average_call(call, applied):
    """A call of an average that is applied, or of one that is not."""

    def make(machine, seed):
        held = machine.model.backup and machine.model.backup[0]
        for which in AVERAGES[:: 1 if seed % 2 else -1]:
            if (which == held) == applied:
                return lambda: call(getattr(machine.world, which))
        return None

    return make


def _param(machine, seed):
    return machine.world.params[list(SHAPES)[seed % len(SHAPES)]]


def _normed(call):
    return lambda machine, seed: call(machine.world.params) if machine.model.dims else None


def _group(key, value):
    return lambda m, seed: lambda: m.world.opt.param_groups[seed % len(m.model.groups)].update({key: value})


def _two_limits(machine, seed):
    groups = machine.model.groups
    named = [i for i, group in enumerate(groups) if group["grad_clip"] is NAMED]
    if not named:
        return None
    clip = nb.ClipGradByGlobalNorm(2.0, group_name=NAMED.group_name)
    return lambda: machine.world.opt.param_groups[named[0] - 1].update(grad_clip=clip)


# Calls that must raise, made for a machine (None: there is no such call now), and what they raise.
REFUSED = {
    "shape of a value": (lambda m, s: _assign(_param(m, s), "value", np.ones((4, 4))), ParameterError),
    "complex value": (lambda m, s: _assign(m.world.params["b"], "value", [1j, 0, 0]), TypeError),
    "shape of a gradient": (lambda m, s: _assign(_param(m, s), "grad", np.ones((4, 4))), ParameterError),
    "rate": (lambda m, s: _assign(_param(m, s), "learning_rate", -1.0), HyperparameterError),
    "rate that is NaN": (lambda m, s: _assign(_param(m, s), "learning_rate", NAN), HyperparameterError),
    "regularizer": (lambda m, s: _assign(_param(m, s), "regularizer", 0.1), TypeError),
    "need_clip": (lambda m, s: _assign(_param(m, s), "need_clip", 1), TypeError),
    "trainable": (lambda m, s: _assign(_param(m, s), "trainable", "no"), TypeError),
    "misspelt": (lambda m, s: _assign(_param(m, s), "learningrate", 1.0), AttributeError),
    "zero weight": (
        _normed(lambda params: lambda: params["w"].set_value(np.zeros((2, 3)))),
        ParameterError,
    ),
    "gradient of g": (
        _normed(lambda params: _assign(params["w_g"], "grad", np.ones((2, 1)))),
        ParameterError,
    ),
    "view of w": (
        _normed(lambda params: lambda: params["w"].value.__setitem__(0, 1.0)),
        ValueError,
    ),
    "new name": (lambda m, s: lambda: m.world.params.create_parameter([2], "new"), ParameterError),
    "name with another shape": (
        lambda m, s: lambda: m.world.params.create_parameter([9], "b"),
        ParameterError,
    ),
    "pattern": (lambda m, s: lambda: m.world.params.freeze("x*"), ParameterError),
    "short vector": (lambda m, s: lambda: m.world.params.from_vector([1.0]), ParameterError),
    "zero vector": (
        _normed(lambda params: lambda: params.from_vector(np.zeros(params.to_vector().size))),
        ParameterError,
    ),
    "unknown gradient": (
        lambda m, s: lambda: m.world.params.set_grads({"b": [1, 1, 1], "x": 1}),
        ParameterError,
    ),
    "second gradient": (lambda m, s: lambda: m.world.opt.step({"b": [1, 1, 1], "k": [1.0]}), ParameterError),
    "short step": (lambda m, s: lambda: m.world.opt.step(np.ones(2)), ParameterError),
    "minimize another": (lambda m, s: lambda: m.world.opt.minimize(parameters=["x"]), ParameterError),
    "group rate": (_group("learning_rate", -1.0), HyperparameterError),
    "group momentum": (_group("momentum", 1.0), HyperparameterError),
    "group rescale": (_group("rescale_grad", NAN), HyperparameterError),
    "group clip": (_group("grad_clip", 1.0), TypeError),
    "group key": (_group("momentums", 0.5), TypeError),
    "one name, two limits": (_two_limits, HyperparameterError),
    "parameter in two groups": (
        lambda m, s: lambda: m.world.opt.add_param_group({"params": m.world.params["b"]}),
        ParameterError,
    ),
    "rate of the optimizer": (
        lambda m, s: lambda: m.world.opt.set_lr(-1.0),
        (HyperparameterError, RuntimeError),  # under a schedule
    ),
    "schedule": (lambda m, s: lambda: m.world.opt.set_lr_scheduler(0.1), TypeError),
    "step that is a text": (lambda m, s: _tampered(m, "b.step", "3"), StateDictError),
    "negative count": (lambda m, s: _tampered(m, "step_count", -1), StateDictError),
    "shape of a velocity": (lambda m, s: _tampered(m, "b.velocity", np.zeros(2)), StateDictError),
    "unexpected entry": (lambda m, s: _tampered(m, "x.velocity", np.zeros(2)), StateDictError),
    "rule": (lambda m, s: _tampered(m, "rule", "adam"), StateDictError),
    "velocity that is NaN": (
        lambda m, s: (
            None if m.model.guard == "propagate" else _tampered(m, "b.velocity", np.full(3, NAN, m.dtype))
        ),
        StateDictError,
    ),
    "restore of what is not applied": (_average_call(lambda a: a.restore(), False), RuntimeError),
    "apply twice": (_average_call(lambda a: a.apply(), True), RuntimeError),
    "state of what is applied": (_average_call(lambda a: a.state_dict(), True), RuntimeError),
    "load into what is applied": (
        _average_call(lambda a: a.set_state_dict({}, strict=False), True),
        RuntimeError,
    ),
    "state of an average": (_average_call(lambda a: a.set_state_dict({}), False), StateDictError),
    "no file": (lambda m, s: lambda: nb.restore(m.folder / "none", m.world.params), FileNotFoundError),
}
