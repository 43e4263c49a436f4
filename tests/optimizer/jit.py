"""What the tests of jit steps share: a model with every policy, and compiled loops over it."""

import functools
import hashlib
import math

import numba
import numpy as np

import nbopt as nb

STEPS, RATE = 100, 0.05
take, _ = nb.optimizer.SGD(0.1, nb.ParameterBuffer.from_arrays({"w": [1.0]})).jit_step()


@nb.rule
def damped(param, velocity, speed, grad, lr, mu=0.9):
    """A rule of a user's, with a root in it."""
    velocity = mu * velocity + grad
    speed = mu * speed + (1 - mu) * velocity * velocity
    return param - lr * velocity / (1 + math.sqrt(speed)), velocity, speed


OPTIMIZERS = {
    "Momentum": functools.partial(nb.optimizer.Momentum, use_nesterov=True),
    "Adam": nb.optimizer.Adam,
    "user": functools.partial(nb.Optimizer, damped),
}
SHAPES = {
    **{"plain": (5, 7), "bias": (3,), "l1": (129,), "l2": (1031,), "frozen": (17,), "late": (77,)},
    **{"norm0": (6, 19), "norm1": (31, 8), "whole": (9, 11), "conv": (4, 3, 3, 3), "inner": (3, 4, 5)},
}
LARGE = {"large": (211, 331)}  # above PARALLEL_FROM
ATTRS = {
    "bias": nb.ParamAttr(learning_rate=2.0, need_clip=False),
    "l1": nb.ParamAttr(regularizer=nb.regularizer.L1Decay(0.01)),
    "l2": nb.ParamAttr(regularizer=nb.regularizer.L2Decay(0.1)),
    "frozen": nb.ParamAttr(trainable=False),
    **{n: nb.WeightNormParamAttr(dim=d) for n, d in {"norm0": 0, "norm1": 1, "conv": 0, "inner": 1}.items()},
    "whole": nb.WeightNormParamAttr(dim=None, need_clip=False),
}
SECOND, THIRD = ("l2", "norm1", "late"), ("inner", "l1")


def mixed(kind, dtype, shapes=SHAPES):
    """A model with every policy, and gradients for all steps; those of `late` come after half of them."""
    rng = np.random.default_rng(0)
    values = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    attrs = {name: attr for name, attr in ATTRS.items() if name in shapes}
    params = nb.ParameterBuffer.from_arrays(values, attrs=attrs, dtype=dtype)
    first = [p for n, p in params.items() if n not in SECOND + THIRD]
    groups = [
        {"params": first},
        {"params": [params[n] for n in SECOND if n in shapes], "grad_clip": nb.ClipGradByNorm(2.0)},
        {"params": [params[n] for n in THIRD if n in shapes], "grad_clip": nb.ClipGradByValue(0.5, -0.25)},
    ]
    groups[1] |= {"learning_rate": 0.5, "rescale_grad": 0.25, "weight_decay": 1e-3}
    clip = nb.ClipGradByGlobalNorm(1.0)
    opt = OPTIMIZERS[kind](RATE, parameters=[g for g in groups if g["params"]], grad_clip=clip)
    grads = np.zeros((STEPS, params.flat_grad.size), dtype)
    for name, where in params.slices.items():
        first_step = STEPS // 2 if name == "late" else 0
        grads[first_step:, where] = rng.standard_normal((STEPS - first_step, where.stop - where.start))
    if "late" in shapes:
        params["late"].clear_grad(set_to_zero=False)
    return params, opt, grads


def digest(params, opt):
    """A hash of every bit of parameters and state."""
    found = hashlib.sha256(params.fingerprint().encode())
    for key, value in sorted(opt.state_dict().items()):
        found.update(f"{key} {value!r}".encode() if np.isscalar(value) else key.encode() + value.tobytes())
    return found.hexdigest()


@numba.njit(nogil=True)
def train(state, flat_grad, grads):
    """The whole training in compiled code; return the sum of what the steps returned."""
    total = 0
    for k in range(len(grads)):
        flat_grad[:] = grads[k]
        state.lr[0] = RATE / (1 + 0.1 * k)
        total += take(state)
    return total


def by_step(params, opt, grads):
    """The same by `step`."""
    for k in range(len(grads)):
        params.flat_grad[:] = grads[k]
        opt.set_lr(RATE / (1 + 0.1 * k))
        opt.step()


def one(size=3, kind=nb.optimizer.SGD, **options):
    """A parameter w of ones whose gradient is 1, so that a step of SGD at rate 1 takes off 1."""
    params = nb.ParameterBuffer.from_arrays({"w": np.ones(size)})
    opt = kind(1.0, parameters=params, **options)
    params["w"].grad = np.ones(size)
    return params, opt, opt.jit_step()[1]
