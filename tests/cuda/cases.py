"""What a user asks of parameters beside steps, as functions of a device that return all that is left."""

import functools
import tempfile
from pathlib import Path

import numpy as np

import nbopt as nb
from tests.cuda.played import arrays_of

SHAPES = {"w": (4, 3), "b": (3,), "c": (2, 5), "s": ()}
ATTRS = {"w": nb.WeightNormParamAttr(dim=0), "c": nb.ParamAttr(learning_rate=2.0)}


def drawn(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}


def model(device, dtype="float32"):
    """A weight-normed parameter and three plain ones."""
    return nb.ParameterBuffer.from_arrays(drawn(0), attrs=ATTRS, dtype=dtype, device=device)


def trained(device, dtype="float32", steps=2):
    """The model, its optimizer, and some steps."""
    params = model(device, dtype)
    opt = nb.optimizer.Momentum(0.1, 0.9, params, weight_decay=0.01, grad_clip=nb.ClipGradByGlobalNorm(1.0))
    for step in range(1, steps + 1):
        opt.step(drawn(step))
    return params, opt


def left(params, opt=None):
    """Every array and number that can be read."""
    found = arrays_of(params) | {"gradients": params.to_vector("grad")}
    return found if opt is None else found | opt.state_dict() | {"grad_norm": opt.grad_norm}


def step(device, dtype):
    return left(*trained(device, dtype))


def draw(device):
    params = nb.ParameterBuffer(device=device, seed=3)
    for name, shape in SHAPES.items():
        params.create_parameter(shape, name, attr=ATTRS.get(name))
    return left(params)


def clip_by_norm(device):
    params = model(device)
    params.set_grads(drawn(1))
    return {"norm": nb.clip_grad_norm_(params, 0.5)} | left(params)


def clip_by_value(device):
    params = model(device)
    params.set_grads(drawn(1))
    nb.clip_grad_value_(params, 0.5)
    return left(params)


def vectors(device):
    params, _ = trained(device)
    whole = params.to_vector(space="trainable")
    params.from_vector(-whole, space="trainable")
    return {"vector": whole} | left(params)


def average(device, make):
    params, opt = trained(device)
    mean = make(parameters=params)
    for number in range(3, 6):
        opt.step(drawn(number))
        (mean.update if hasattr(mean, "update") else mean.step)()
    with mean.apply():
        applied = {f"applied {name}": array for name, array in arrays_of(params).items()}
    return applied | mean.state_dict() | left(params)


def checkpoint(device):
    """Saved, and restored into a model that went on."""
    params, opt = trained(device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        nb.save(path, params, opt)
        saved = {f"saved {name}": value for name, value in nb.load(path).items()}
        opt.step(drawn(9))
        nb.restore(path, params, opt)
    opt.step(drawn(3))
    return saved | left(params, opt)


CASES = {
    "a step, float32": functools.partial(step, dtype="float32"),
    "a step, float64": functools.partial(step, dtype="float64"),
    "initial values": draw,
    "clip_grad_norm_": clip_by_norm,
    "clip_grad_value_": clip_by_value,
    "vectors": vectors,
    "ExponentialMovingAverage": functools.partial(
        average, make=functools.partial(nb.ExponentialMovingAverage, 0.5)
    ),
    "ModelAverage": functools.partial(average, make=functools.partial(nb.ModelAverage, 0.5)),
    "a checkpoint": checkpoint,
}
