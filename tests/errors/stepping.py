"""Wrong calls of steps, and of what goes with them: averages, schedules, compiled steps."""

import copy
import pickle

import numpy as np

import nbopt as nb
from nbopt.errors import DeviceError, HyperparameterError, NonFiniteGradientError, ParameterError
from tests.errors import NAN

V, G = np.ones((2, 3)), np.ones(2)


def nan_step(m):
    m.opt.step({"w": [[1.0, 1.0, 1.0], [1.0, NAN, 1.0]], "b": [1.0] * 3})


def empty_average(m):
    nb.ModelAverage(0.5, m.params).apply()


STEPS = {
    "step-keyword": (
        lambda m: m.opt.step(grad=1),
        TypeError,
        "Optimizer.step() got an unexpected keyword argument 'grad'",
    ),
    "step-two": (
        lambda m: m.opt.step(1, 2),
        TypeError,
        "Optimizer.step() takes from 1 to 2 positional arguments but 3 were given",
    ),
    "step-number": (
        lambda m: m.opt.step(0.5),
        ParameterError,
        "vector of grads has shape (), but (9,) is needed; gradients by name are a mapping",
    ),
    "step-text": (
        lambda m: m.opt.step("w"),
        TypeError,
        "vector of grads must hold real numbers, got dtype <U1",
    ),
    "step-short": (
        lambda m: m.opt.step([1.0, 2.0]),
        ParameterError,
        "vector of grads has shape (2,), but (9,) is needed",
    ),
    "step-unknown": (
        lambda m: m.opt.step({"b": [2.0] * 3, "v": 1.0}),
        ParameterError,
        "gradient for an unknown parameter 'v': ... w, b",
    ),
    "step-unknown-number": (
        lambda m: m.opt.step({0: 1.0}),
        ParameterError,
        "gradient for an unknown parameter 0",
    ),
    "step-shape": (
        lambda m: m.opt.step({"b": [2.0] * 3, "w": [1.0, 2.0]}),
        ParameterError,
        "gradient of 'w' has shape (2,), but (2, 3) is needed",
    ),
    "step-column": (
        lambda m: m.opt.step({"b": [[1.0]] * 3}),
        ParameterError,
        "gradient of 'b' has shape (3, 1), but (3,) is needed",
    ),
    "step-complex": (
        lambda m: m.opt.step({"b": [1j] * 3}),
        TypeError,
        "gradient of 'b' must hold real numbers, got dtype complex128",
    ),
    "step-object": (
        lambda m: m.opt.step({"b": [None] * 3}),
        TypeError,
        "gradient of 'b' must hold real numbers, got dtype object",
    ),
    "step-too-large": (
        lambda m: m.opt.step({"b": [1.0, 1e39, 1.0]}),
        ParameterError,
        "gradient of 'b' does not fit float32: element (1,) is 1e+39",
    ),
    "step-part": (
        lambda m: nb.optimizer.SGD(0.1, m.normed).step({"w_v": V}),
        ParameterError,
        "gradient for an unknown parameter 'w_v'",
    ),
    "minimize-text": (
        lambda m: m.opt.minimize("a"),
        TypeError,
        "loss must be a number, or a callable that returns one, got str 'a'",
    ),
    "minimize-vector": (
        lambda m: m.opt.minimize(lambda: np.ones(2)),
        TypeError,
        "loss must be a number, or a callable that returns one, got ndarray array([1., 1.])",
    ),
    "minimize-parameters": (
        lambda m: m.opt.minimize(parameters=3),
        TypeError,
        "parameters must be parameters or names, got int 3",
    ),
    "minimize-unknown": (
        lambda m: m.opt.minimize(no_grad_set=["v"]),
        ParameterError,
        "no_grad_set: 'v' is none of this optimizer's parameters",
    ),
    "minimize-other": (
        lambda m: m.opt.minimize(parameters=[m.other["w"]]),
        ParameterError,
        "parameters: 'w' is none of this optimizer's parameters",
    ),
    "minimize-array": (
        lambda m: m.opt.minimize(parameters=[V]),
        TypeError,
        "parameters must hold parameters or names, got ndarray",
    ),
    "clear-grad": (lambda m: m.opt.clear_grad(1), TypeError, "set_to_zero must be True or False, got int 1"),
    "explain-unknown": (
        lambda m: m.opt.explain("v"),
        ParameterError,
        "explain: 'v' is none of this optimizer's parameters: w, b",
    ),
    "explain-number": (
        lambda m: m.opt.explain(3),
        TypeError,
        "explain takes a name or a Parameter, got int 3",
    ),
    "jit-pickle": (
        lambda m: pickle.dumps(m.opt.jit_step()[1]),
        TypeError,
        "the state of a jit step belongs to its optimizer and cannot be copied or pickled",
    ),
    "jit-copy": (
        lambda m: copy.deepcopy(m.opt.jit_step()[1]),
        TypeError,
        "the state of a jit step belongs to its optimizer ... call jit_step() of the copy",
    ),
    "stream-on-the-cpu": (
        lambda m: m.params.use_stream(0),
        DeviceError,
        "a CUDA stream is of no use to a buffer with device='cpu'",
    ),
}

SCHEDULES = {
    "schedule-text": (
        lambda m: m.schedule.step("3"),
        TypeError,
        "StepDecay epoch must be an integer, got str '3'",
    ),
    "schedule-negative": (
        lambda m: m.schedule.step(-1),
        HyperparameterError,
        "StepDecay epoch must be >= 0, got -1",
    ),
    "plateau-metric": (
        lambda m: nb.optimizer.lr.ReduceOnPlateau(0.1).step("a"),
        TypeError,
        "ReduceOnPlateau ... metric ... number, got str 'a'",
    ),
    "average-restore": (
        lambda m: m.average.restore(),
        RuntimeError,
        "ModelAverage: the parameters hold their own values; apply() comes first",
    ),
    "average-need": (
        lambda m: m.average.apply(1),
        TypeError,
        "need_restore must be True or False, got int 1",
    ),
    "average-empty": (
        empty_average,
        RuntimeWarning,
        "this ModelAverage has taken no values in: ... parameters as they are; call ModelAverage.step()",
    ),
    "ema-empty": (
        lambda m: nb.ExponentialMovingAverage(0.5, m.params).apply(),
        RuntimeWarning,
        "call ExponentialMovingAverage.update() after each step",
    ),
    "ema-thres": (
        lambda m: nb.ExponentialMovingAverage(0.5, m.params, lambda: "a").update(),
        TypeError,
        "thres_steps must be a number, got str 'a'",
    ),
}

TABLE = {**STEPS, **SCHEDULES}

# Between apply() and restore() the values are those of the average, which a refused call leaves there.
APPLIED = {
    "applied-twice": (
        lambda m: m.average.apply(),
        RuntimeError,
        "the parameters hold the averages of this ModelAverage; call restore() before the next apply()",
    ),
    "applied-step": (
        lambda m: m.average.step(),
        RuntimeError,
        "the parameters hold the averages ... an average of averages would follow; call restore() first",
    ),
    "applied-state": (
        lambda m: m.average.state_dict(),
        RuntimeError,
        "the parameters hold the averages ... call restore() first",
    ),
    "applied-load": (
        lambda m: m.average.set_state_dict({}),
        RuntimeError,
        "the parameters hold the averages of this ModelAverage; call restore() first",
    ),
}

# A step that finds NaN has copied the gradients in: nothing else changes.
NONFINITE = {
    "nonfinite": (nan_step, NonFiniteGradientError, "'w' ... (1, 1)"),
    "nonfinite-clip": (
        lambda m: (setattr(m.b, "grad", [NAN] * 3), nb.clip_grad_norm_(m.params, 1, error_if_nonfinite=True)),
        NonFiniteGradientError,
        "the gradient of 'b' is nan at (0,); nothing was clipped",
    ),
}
