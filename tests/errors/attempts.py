"""First attempts: what users of NumPy, SciPy and torch write before they have read the pages here."""

import numpy as np

import nbopt as nb

X = np.ones(3)

ARITHMETIC = {
    "arithmetic-times": (
        lambda m: m.b * 2,
        TypeError,
        "a Parameter has no * of its own: write params['b'].value",
    ),
    "arithmetic-from-the-left": (lambda m: 2.0 - m.b, TypeError, "no - ... params['b'].value"),
    "arithmetic-power": (lambda m: m.b**2, TypeError, "no ** ... params['b'].value"),
    "arithmetic-minus": (lambda m: -m.b, TypeError, "no - ... params['b'].value"),
    "arithmetic-two": (lambda m: m.b + m.b, TypeError, "no + ... params['b'].value"),
    "arithmetic-compared": (lambda m: m.b > 0, TypeError, "no > ... params['b'].value"),
    "arithmetic-in-place": (lambda m: m.b.__isub__(X), TypeError, "no -= ... params['b'].value"),
    "arithmetic-item": (lambda m: m.b[0], TypeError, "no [] ... params['b'].value"),
    "arithmetic-set-item": (lambda m: m.b.__setitem__(0, 1.0), TypeError, "no [] ... params['b'].value"),
    "arithmetic-replaced": (
        lambda m: m.params.__setitem__("b", X),
        TypeError,
        "a parameter cannot be replaced: write params['b'].value = array",
    ),
}

PARAMETERS = {
    "parameters-arrays": (
        lambda m: nb.optimizer.SGD(0.1, [X]),
        TypeError,
        "parameters must be Parameter objects, got ndarray; ... from_arrays({'x': array})",
    ),
    "parameters-vector": (
        lambda m: nb.optimizer.SGD(0.1, X),
        TypeError,
        "got float64; ... from_arrays({'x': array})",
    ),
    "arrays-nested": (
        lambda m: nb.ParameterBuffer.from_arrays({"fc": {"w": X}}),
        TypeError,
        "array 'fc' must hold real numbers, got a mapping; for a tree, join names as in 'fc.w'",
    ),
    "checkpoint-every-alone": (
        lambda m: nb.callbacks.CheckpointEvery(10),
        TypeError,
        "CheckpointEvery path must be a string or a path, got 10; write CheckpointEvery('run",
    ),
    "rate-class": (
        lambda m: nb.optimizer.SGD(nb.optimizer.lr.StepDecay, m.params),
        TypeError,
        "learning_rate must be a number, got the class StepDecay; a schedule of nbopt.optimizer.lr is legal",
    ),
    "rate-function": (
        lambda m: nb.optimizer.SGD(lambda step: 0.1, m.params),
        TypeError,
        "learning_rate must be a number, got function ... LambdaDecay",
    ),
    "minimize-maxiter": (
        lambda m: nb.minimize(print, m.params, m.opt),
        TypeError,
        "missing a required argument: 'maxiter'; write minimize(fun, params, opt, maxiter=..., args=...",
    ),
    "check-gradient-vector": (
        lambda m: nb.check_gradient(print, X),
        TypeError,
        "params must be a ParameterBuffer, got ndarray; ... scipy.optimize.check_grad",
    ),
    "tree-single": (
        lambda m: nb.jax.from_pytree(X),
        TypeError,
        "a tree of parameters has keys, got a single ndarray; write {'x': leaf}",
    ),
}

NAMES = {
    "name-optim": (lambda m: nb.optim, AttributeError, "no attribute 'optim'; did you mean nbopt.optimizer?"),
    "name-lr": (lambda m: nb.lr, AttributeError, "it is nbopt.optimizer.lr"),
    "name-of-a-callback": (lambda m: nb.History, AttributeError, "it is nbopt.callbacks.History"),
    "name-rmsprop": (
        lambda m: nb.optimizer.RMSprop,
        AttributeError,
        "no attribute 'RMSprop'; there are SGD, Adam, AdamW, Momentum ... nbopt.rule",
    ),
    "name-step-lr": (lambda m: nb.optimizer.lr.StepLR, AttributeError, "did you mean StepDecay?"),
    "name-average-update": (
        lambda m: m.average.update,
        AttributeError,
        "ModelAverage has no attribute 'update'; write step() after each step of the optimizer",
    ),
    "name-average-step": (
        lambda m: nb.ExponentialMovingAverage(0.9, m.params).step,
        AttributeError,
        "ExponentialMovingAverage has no attribute 'step'; write update()",
    ),
}

TABLE = {**ARITHMETIC, **PARAMETERS, **NAMES}

# The gradients are copied in.
NONFINITE = {
    "diverged": (
        lambda m: m.opt.step({"w": np.full((2, 3), np.inf), "b": X}),
        nb.errors.NonFiniteGradientError,
        "mend the gradient, lower the rate that led here, or choose nonfinite",
    ),
}
