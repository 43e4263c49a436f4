"""Wrong values given to what exists: parameters, buffers, groups, rates, schedules."""

import numpy as np

from nbopt.errors import HyperparameterError, ParameterError
from tests.errors import INF, NAN


def to(thing, name, value):
    """A call that sets an attribute of a part of the model."""
    return lambda m: setattr(thing(m), name, value)


def w(m):
    return m.w


def params(m):
    return m.params


def opt(m):
    return m.opt


def normed(m):
    return m.normed["w"]


def key(name, value):
    return lambda m: m.opt.param_groups[0].update({name: value})


SHAPE = np.ones((2, 3))

PARAMETERS = {
    "value-shape": (
        to(w, "value", [1.0]),
        ParameterError,
        "value of 'w' has shape (1,), but (2, 3) is needed",
    ),
    "value-scalar": (
        lambda m: m.w.set_value(1.0),
        ParameterError,
        "value of 'w' has shape (), but (2, 3) is needed",
    ),
    "value-ragged": (
        to(w, "value", [[1.0], [1.0, 2.0]]),
        ParameterError,
        "value of 'w' is no array of numbers",
    ),
    "value-masked": (
        to(w, "value", np.ma.masked_less(SHAPE, 2.0 * SHAPE)),
        ParameterError,
        "value of 'w' has masked elements",
    ),
    "value-text": (to(w, "value", "1"), TypeError, "value of 'w' must hold real numbers, got dtype <U1"),
    "value-none": (to(w, "value", None), TypeError, "value of 'w' must hold real numbers, got dtype object"),
    "value-complex": (
        to(w, "value", SHAPE * 1j),
        TypeError,
        "value of 'w' must hold real numbers, got dtype complex128",
    ),
    "value-boolean": (
        to(w, "value", SHAPE > 0),
        TypeError,
        "value of 'w' must hold real numbers, got dtype bool",
    ),
    "value-too-large": (
        to(w, "value", SHAPE * 1e39),
        ParameterError,
        "value of 'w' does not fit float32: element (0, 0) is 1e+39; use a float64 buffer",
    ),
    "value-zero-slice": (
        to(normed, "value", [[0.0] * 3, [1.0] * 3]),
        ParameterError,
        "parameter 'w': weight norm needs a direction, but slice 0 along axis 0 is zero",
    ),
    "grad-shape": (
        to(w, "grad", [1.0]),
        ParameterError,
        "gradient of 'w' has shape (1,), but (2, 3) is needed",
    ),
    "grad-transposed": (
        to(w, "grad", SHAPE.T),
        ParameterError,
        "gradient of 'w' has shape (3, 2), but (2, 3) is needed",
    ),
    "grad-text": (to(w, "grad", "1"), TypeError, "gradient of 'w' must hold real numbers, got dtype <U1"),
    "grad-of-a-part": (
        lambda m: setattr(m.normed["w"].weight_v, "grad", SHAPE),
        ParameterError,
        "the gradient of 'w_v' is computed; write dL/dw to 'w'",
    ),
    "part-replaced": (
        to(normed, "weight_g", SHAPE),
        AttributeError,
        "weight_g of 'w' is a Parameter and cannot be replaced; assign to weight_g.value",
    ),
    "part-of-a-plain-one": (
        to(w, "weight_v", SHAPE),
        AttributeError,
        "'w' has no weight norm, and so no weight_v to set",
    ),
    "rate-negative": (
        to(w, "learning_rate", -1),
        HyperparameterError,
        "learning_rate of 'w' must be a finite number >= 0, got -1.0",
    ),
    "rate-inf": (
        to(w, "learning_rate", INF),
        HyperparameterError,
        "learning_rate of 'w' must be a finite number >= 0, got inf",
    ),
    "rate-text": (
        to(w, "learning_rate", "1"),
        TypeError,
        "learning_rate of 'w' must be a number, got str '1'",
    ),
    "regularizer-number": (
        to(w, "regularizer", 0.1),
        TypeError,
        "regularizer of 'w' must be None, L1Decay or L2Decay, got 0.1",
    ),
    "need-clip-number": (
        to(w, "need_clip", 1),
        TypeError,
        "need_clip of 'w' must be True or False, got int 1",
    ),
    "trainable-text": (
        to(w, "trainable", "no"),
        TypeError,
        "trainable of 'w' must be True or False, got str 'no'",
    ),
    "stop-gradient-none": (
        to(w, "stop_gradient", None),
        TypeError,
        "stop_gradient of 'w' must be True or False, got NoneType",
    ),
    "average-number": (
        to(w, "do_model_average", 0),
        TypeError,
        "do_model_average of 'w' must be True or False, got int 0",
    ),
    "name-fixed": (to(w, "name", "v"), AttributeError, "name of a Parameter cannot be set"),
    "shape-fixed": (to(w, "shape", (3, 2)), AttributeError, "shape of a Parameter cannot be set"),
    "parameter-lr": (
        to(w, "lr", 0.1),
        AttributeError,
        "Parameter has no attribute 'lr' to set: write learning_rate",
    ),
    "parameter-data": (
        to(w, "data", SHAPE),
        AttributeError,
        "Parameter has no attribute 'data' to set: write value",
    ),
    "parameter-misspelt": (
        to(w, "need_clips", True),
        AttributeError,
        "'need_clips' to set: did you mean 'need_clip'?",
    ),
    "clear-grad-number": (
        lambda m: m.w.clear_grad(0),
        TypeError,
        "set_to_zero must be True or False, got int 0",
    ),
}

BUFFERS = {
    "buffer-name": (to(params, "w", SHAPE), AttributeError, "'w' to set: write params['w'].value = array"),
    "buffer-flat": (
        to(params, "flat", SHAPE),
        AttributeError,
        "flat of a ParameterBuffer cannot be set; write params.flat[:] = values",
    ),
    "buffer-flat-grad": (
        to(params, "flat_grad", SHAPE),
        AttributeError,
        "flat_grad ... cannot be set; write params.flat_grad[:] = values",
    ),
    "buffer-dtype": (
        to(params, "dtype", "float64"),
        AttributeError,
        "dtype of a ParameterBuffer cannot be set; write ... dtype=...)",
    ),
    "buffer-device": (
        to(params, "device", "cuda"),
        AttributeError,
        "device of a ParameterBuffer cannot be set; write ... device=...)",
    ),
    "buffer-seed": (to(params, "seed", "x"), AttributeError, "seed of a ParameterBuffer cannot be set"),
    "grads-none": (
        lambda m: m.params.set_grads(None),
        TypeError,
        "grads must be a mapping of names to gradients, or a vector, got None",
    ),
    "grads-unknown": (
        lambda m: m.params.set_grads({"b": [2.0] * 3, "v": 1.0}),
        ParameterError,
        "gradient for an unknown parameter 'v': ... w, b",
    ),
    "grads-shape": (
        lambda m: m.params.set_grads({"b": [2.0] * 3, "w": [1.0]}),
        ParameterError,
        "gradient of 'w' has shape (1,), but (2, 3) is needed",
    ),
    "grads-text": (
        lambda m: m.params.set_grads("w"),
        TypeError,
        "vector of grads must hold real numbers, got dtype <U1; ... mapping",
    ),
    "grads-short": (
        lambda m: m.params.set_grads([1.0, 2.0]),
        ParameterError,
        "vector of grads has shape (2,), but (9,) is needed",
    ),
    "vector-short": (
        lambda m: m.params.from_vector([1.0]),
        ParameterError,
        "vector of values has shape (1,), but (9,) is needed",
    ),
    "vector-matrix": (
        lambda m: m.params.from_vector(np.ones((3, 3))),
        ParameterError,
        "vector of values has shape (3, 3), but (9,) is needed",
    ),
    "vector-what": (
        lambda m: m.params.from_vector(np.ones(9), "values"),
        ParameterError,
        "what must be one of ('value', 'grad'), got 'values'",
    ),
    "vector-space": (
        lambda m: m.params.to_vector(space="all"),
        ParameterError,
        "space must be one of ('effective', 'trainable'), got 'all'",
    ),
    "vector-frozen": (
        lambda m: m.params.to_vector(frozen=1),
        TypeError,
        "frozen must be True or False, got int 1",
    ),
    "vector-grad-of-parts": (
        lambda m: m.normed.from_vector(np.ones(8), "grad", "trainable"),
        ParameterError,
        "gradients of g and v are computed; write dL/dw",
    ),
    "freeze-no-match": (
        lambda m: m.params.freeze("v*"),
        ParameterError,
        "pattern 'v*' matches no parameter; there are: w, b",
    ),
    "freeze-a-part": (
        lambda m: m.normed.freeze("w_g"),
        ParameterError,
        "pattern 'w_g' matches 'w_g', a part of 'w' ... weight_g.trainable = False",
    ),
    "select-number": (lambda m: m.params.select(3), TypeError, "pattern must be a string, got int 3"),
    "numpy-keyword": (
        lambda m: m.params.numpy(dtype="float64"),
        TypeError,
        "ParameterBuffer.numpy() got an unexpected keyword argument 'dtype'",
    ),
    "unknown-name": (lambda m: m.params["weight"], KeyError, "no parameter 'weight'; ... w, b"),
}

OPTIMIZERS = {
    "opt-lr": (
        to(opt, "lr", 0.1),
        AttributeError,
        "Momentum has no attribute 'lr' to set: write opt.set_lr(value)",
    ),
    "opt-momentum": (
        to(opt, "momentum", 0.5),
        AttributeError,
        "'momentum' to set: write opt.param_groups[0]['momentum'] = value",
    ),
    "opt-misspelt": (
        to(opt, "nane", "x"),
        AttributeError,
        "Momentum has no attribute 'nane' to set: did you mean 'name'?",
    ),
    "opt-groups": (
        to(opt, "param_groups", []),
        AttributeError,
        "param_groups of a Momentum cannot be set; write opt.param_groups[0][key] = value",
    ),
    "opt-step-count": (
        to(opt, "step_count", 0),
        AttributeError,
        "step_count of a Momentum cannot be set; write opt.set_state_dict(state)",
    ),
    "opt-parameters": (
        to(opt, "parameters", []),
        AttributeError,
        "parameters of a Momentum cannot be set; write opt.add_param_group(group)",
    ),
    "set-lr-negative": (
        lambda m: m.opt.set_lr(-1),
        HyperparameterError,
        "Momentum learning_rate must be a finite number >= 0, got -1.0",
    ),
    "set-lr-text": (
        lambda m: m.opt.set_lr("a"),
        TypeError,
        "Momentum learning_rate must be a number, got str 'a'",
    ),
    "set-lr-schedule": (
        lambda m: m.opt.set_lr(m.schedule),
        TypeError,
        "Momentum.set_lr takes a number; call set_lr_scheduler(schedule)",
    ),
    "set-lr-scheduled": (
        lambda m: m.scheduled.set_lr(0.1),
        RuntimeError,
        "the rate of this Momentum follows a StepDecay; call set_lr_scheduler",
    ),
    "set-scheduler-number": (
        lambda m: m.opt.set_lr_scheduler(0.1),
        TypeError,
        "Momentum.set_lr_scheduler takes a schedule of nbopt.optimizer.lr or None, got float 0.1",
    ),
    "group-momentum": (
        key("momentum", 1.0),
        HyperparameterError,
        "Momentum group 0 momentum ... >= 0 and < 1, got 1.0",
    ),
    "group-nesterov": (
        key("use_nesterov", 1),
        TypeError,
        "Momentum group 0 use_nesterov must be True or False, got int 1",
    ),
    "group-lr": (
        key("lr", 0.1),
        TypeError,
        "Momentum group 0: unknown key 'lr'; did you mean 'learning_rate'",
    ),
    "group-params": (
        key("params", []),
        TypeError,
        "Momentum group 0: the parameters of a group do not change; use add_param_group",
    ),
    "group-decay": (
        key("weight_decay", NAN),
        HyperparameterError,
        "Momentum group 0 weight_decay must be a finite number >= 0, got nan",
    ),
    "group-removed": (
        lambda m: m.opt.param_groups[0].pop("momentum"),
        TypeError,
        "Momentum group 0: keys are not removed; set weight_decay or grad_clip to None",
    ),
    "add-group-buffer": (
        lambda m: m.opt.add_param_group(m.params),
        TypeError,
        "Momentum: a group is a dictionary with 'params', got ParameterBuffer",
    ),
    "add-group-held": (
        lambda m: m.opt.add_param_group({"params": m.w}),
        ParameterError,
        "parameter 'w' is in group 0 and in group 1",
    ),
    "add-group-other-buffer": (
        lambda m: m.opt.add_param_group({"params": m.other["w"]}),
        ParameterError,
        "Momentum: the new group's parameters belong to another buffer",
    ),
    "add-group-misspelt": (
        lambda m: m.opt.add_param_group({"param": m.w}),
        TypeError,
        "Momentum group 0 has no 'params'",
    ),
}

TABLE = {**PARAMETERS, **BUFFERS, **OPTIMIZERS}
