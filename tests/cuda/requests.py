"""What a buffer and its optimizer are asked for, on whatever device; edits of their tables above all.

Each request takes the name of a device and returns what it read, by name, as numbers and arrays of the host.
"""

from __future__ import annotations

import copy
import os
import pickle
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

import nbopt as nb

Request = Callable[[str], dict[str, Any]]
REQUESTS: dict[str, Request] = {}


def request(function: Request) -> Request:
    REQUESTS[function.__name__] = function
    return function


def model(device: str, dtype: str = "float32", many: int = 0) -> nb.ParameterBuffer:
    """Every kind of parameter: plain, scalar, empty, weight norm of each layout."""
    params = nb.ParameterBuffer(dtype=dtype, device=device, seed=3)
    params.create_parameter([3, 5], "w", attr=nb.ParamAttr(regularizer=nb.regularizer.L1Decay(0.01)))
    params.create_parameter([5], "b", is_bias=True, attr=nb.ParamAttr(learning_rate=2.0, need_clip=False))
    params.create_parameter([], "scalar", attr=nb.initializer.Constant(0.5))
    params.create_parameter([0, 3], "empty")
    params.create_parameter([4, 3], "rows", attr=nb.WeightNormParamAttr(dim=0))
    params.create_parameter([4, 3], "columns", attr=nb.WeightNormParamAttr(dim=1))
    params.create_parameter([2, 3], "whole", attr=nb.WeightNormParamAttr())
    for i in range(many):
        params.create_parameter([2], f"small_{i}")
    return params


def gradients(params: nb.ParameterBuffer, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=p.shape).astype(params.dtype) for name, p in params.items()}


def everything(params: nb.ParameterBuffer) -> dict[str, Any]:
    """All values and gradients, and what the device holds of the attribute table."""
    storage = params._seal()
    return {
        "data": storage.memory.read(storage.data).copy(),
        "grad": storage.memory.read(storage.grad).copy(),
        "attributes": storage.memory.read(storage.memory.array_of(storage.attributes)).copy(),
        "fingerprint": params.fingerprint(),
    }


def tables(opt: nb.Optimizer) -> dict[str, Any]:
    """What the device holds of the tables of an optimizer."""
    own, memory = opt._tables, opt._tables.memory
    names = ("members", "groups", "clips", "rates", "counters")
    return {name: memory.read(memory.array_of(getattr(own, name))).copy() for name in names}


def labelled(label: str, found: dict[str, Any]) -> dict[str, Any]:
    return {f"{label} {name}": value for name, value in found.items()}


# --- parameters -----------------------------------------------------------------------------------


@request
def values_are_set_and_read(device):
    params = model(device)
    params["w"].set_value(np.arange(15.0).reshape(3, 5))  # before the layout
    params["rows"].set_value(np.arange(1.0, 13.0).reshape(4, 3))
    before = params.numpy()
    params["b"].value = [1, 2, 3, 4, 5]
    params["scalar"].value = 7
    params["columns"].set_value(np.full((4, 3), 2.0))
    params["rows"].weight_g.set_value(np.full((4, 1), 3.0))
    params["whole"].weight_v.value = np.arange(1.0, 7.0).reshape(2, 3)
    params["w"].value = params["w"].value
    arrays = {name: np.asarray(p) for name, p in params.items()}
    return {**labelled("before", before), **labelled("array", arrays), **everything(params)}


@request
def vectors_go_both_ways(device):
    params = model(device, "float64")
    first = {space: params.to_vector(space=space) for space in ("effective", "trainable")}
    params.from_vector(np.linspace(1.0, 2.0, params.to_vector().size))
    params.from_vector(2 * params.to_vector(space="trainable"), space="trainable")
    params.from_vector(params.to_vector()[::-1], what="grad")
    params["w"].trainable = False
    read = {
        f"{what} {space} {frozen}": params.to_vector(what, space, frozen)
        for what in ("value", "grad")
        for space in ("effective", "trainable")
        for frozen in (True, False)
    }
    return {**labelled("first", first), **read, **everything(params)}


@request
def gradients_are_set_and_cleared(device):
    params = model(device, many=20)
    grads = gradients(params)
    params.set_grads(grads)
    params["w"].grad = params["w"].grad
    found = labelled("full", everything(params))
    params["b"].grad = None
    params["rows"].clear_grad()
    params["columns"].clear_grad(set_to_zero=False)
    for name in ("whole_v", "whole_g", "rows_v", "columns_g"):
        grad = params[name].grad
        found[name] = params._memory.read(grad)
    found |= labelled("some", everything(params)) | {"some": [p.has_grad for p in params.values()]}
    params.clear_grad(set_to_zero=False)
    found |= labelled("none", everything(params)) | {"none": [p.has_grad for p in params.values()]}
    params.set_grads({"w": grads["w"], "rows": None})
    return found | everything(params)


@request
def policies_are_set_and_read(device):
    params = model(device)
    params["w"].learning_rate = 0.5  # before the layout
    assert params.flat.shape
    params["w"].learning_rate = 0.25
    params["w"].regularizer = nb.regularizer.L2Decay(0.125)
    params["b"].regularizer = None
    params["rows"].need_clip = False
    params["columns"].weight_g.learning_rate = 3.0
    params["whole"].do_model_average = True
    params.freeze("*l*")
    params.unfreeze("scalar")
    read = [(p.learning_rate, p.need_clip, p.trainable, p.do_model_average) for p in params.values()]
    return {
        "read": np.array(read),
        "regularizers": repr([p.regularizer for p in params.values()]),
        "summary": str(params.summary()),
        **everything(params),
    }


@request
def copies_are_as_the_original(device):
    params = model(device)
    opt = nb.optimizer.Adam(0.01, parameters=params, weight_decay=0.1)
    params.set_grads(gradients(params))
    params["w"].grad = None
    opt.set_lr(0.5)
    found = {}
    for label, (p, o) in {
        "deepcopy": copy.deepcopy((params, opt)),
        "pickle": pickle.loads(pickle.dumps((params, opt), protocol=5)),
    }.items():
        assert p.device == params.device
        assert o._buffer is p
        p["b"].value = np.full(5, 9.0)
        found |= labelled(label, everything(p) | tables(o))
    return found | everything(params)


@request
def checkpoints_are_filled_in(device):
    params, other = model(device), model(device)
    opt, again = (nb.optimizer.Momentum(0.1, 0.9, parameters=p) for p in (params, other))
    velocity = np.full((3, 5), 2.0, "float32")
    opt.set_state_dict({**opt.state_dict(), "w.velocity": velocity, "w.step": 4, "step_count": 4})
    params["w"].grad = None
    params["columns"].set_value(np.full((4, 3), 2.0))
    other.set_grads(gradients(other))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "run.safetensors")
        nb.save(path, params, opt)
        with open(path, "rb") as file:
            content = file.read()
        nb.restore(path, other, again)
    return {"file": content, **everything(other), **tables(again), **again.state_dict()}


@request
def averages_come_and_go(device):
    params = model(device)
    for p in params.values():
        p.do_model_average = p.name != "b"
    mean, moving = nb.ModelAverage(0.5, params, 2, 4), nb.ExponentialMovingAverage(0.5, params)
    for i in range(5):
        params.from_vector(np.arange(1.0, 1.0 + params.to_vector().size) * (i + 1))
        params["w"].grad = None if i == 2 else np.ones((3, 5))
        mean.step()
        moving.update()
    with mean.apply():
        found = labelled("mean", everything(params))
    found |= labelled("between", everything(params))
    with moving.apply():
        found |= labelled("moving", everything(params))
    return found | everything(params)


# --- optimizers -----------------------------------------------------------------------------------


@request
def edits_reach_the_tables(device):
    params = model(device)
    groups = [
        {"params": [params["w"], params["rows"]], "learning_rate": 0.5},
        {"params": [params["b"]], "grad_clip": nb.ClipGradByValue(0.5), "weight_decay": None},
    ]
    clip = nb.ClipGradByGlobalNorm(1.0)
    opt = nb.optimizer.Momentum(0.1, parameters=groups, weight_decay=0.25, grad_clip=clip)
    first = tables(opt)
    opt.add_param_group({"params": [params["scalar"], params["whole"]], "momentum": 0.5})
    opt.param_groups[0]["weight_decay"] = nb.regularizer.L1Decay(0.5)
    opt.param_groups[1].update(grad_clip=None, rescale_grad=0.5)
    opt.set_lr(0.0625)
    return {**labelled("first", first), **tables(opt), "lr": opt.get_lr()}


@request
def schedules_write_the_rate(device):
    params = model(device)
    schedule = nb.optimizer.lr.StepDecay(0.5, step_size=2)
    opt = nb.optimizer.AdamW(schedule, parameters=params, lr_ratio=lambda p: 0.5 if p.name == "w" else 1.0)
    rates = []
    for _ in range(5):
        schedule.step()
        rates.append(tables(opt)["rates"][0])
    opt.set_lr_scheduler(None)
    opt.set_lr(0.75)
    return {"rates": np.array(rates), **labelled("last", tables(opt))}


@request
def states_come_back(device):
    params = model(device)
    opt = nb.optimizer.Adam(0.1, parameters=params)
    rng = np.random.default_rng(1)
    state = opt.state_dict()
    for name, value in state.items():
        if isinstance(value, np.ndarray):
            state[name] = rng.random(value.shape).astype(value.dtype)
        elif name.endswith(".step"):
            state[name] = int(rng.integers(1, 9))
    opt.set_state_dict({**state, "step_count": 9, "learning_rate": 0.25})
    return {**opt.state_dict(), **tables(opt)}


def stepped(device: str, dtype: str, make: Callable[[nb.ParameterBuffer], nb.Optimizer]) -> dict[str, Any]:
    """Steps with every kind of edit between them."""
    params = model(device, dtype)
    opt = make(params)
    found: dict[str, Any] = {}
    for i in range(4):
        opt.step(gradients(params, i))
        found[f"norm {i}"] = opt.grad_norm
        found[f"coefficients {i}"] = repr(sorted(opt.clip_coefficients.items()))
        if i == 0:
            opt.set_lr(0.05)
            params["w"].need_clip = False
        elif i == 1:
            params.freeze("rows")
            opt.param_groups[0]["weight_decay"] = 0.5
        elif i == 2:
            params["b"].grad = None
            opt.step()
            opt.zero_grad()
    opt.minimize(parameters=["w", "whole"])
    found["taken"] = repr([p.name for p, _ in opt.minimize(no_grad_set=["w"])[1]])
    found["explained"] = repr([vars(e) for e in opt.explain()])
    return found | {"steps": opt.step_count} | opt.state_dict() | everything(params)


@request
def momentum_steps(device):
    clip = nb.ClipGradByGlobalNorm(1.0)
    return stepped(
        device,
        "float32",
        lambda p: nb.optimizer.Momentum(0.1, parameters=p, grad_clip=clip, weight_decay=0.1),
    )


@request
def sgd_steps_in_float64(device):
    return stepped(device, "float64", lambda p: nb.optimizer.SGD(0.1, p, grad_clip=nb.ClipGradByNorm(0.5)))


@request
def a_refused_step_changes_nothing(device):
    params = model(device)
    opt = nb.optimizer.Momentum(0.1, parameters=params)
    opt.step(gradients(params))
    bad = gradients(params, 1)
    bad["rows"][2, 1] = np.nan
    before, said = everything(params)["data"], []
    for _ in range(2):
        try:
            opt.step(bad)
            opt.check()
        except nb.errors.NonFiniteGradientError as error:
            said.append((str(error), error.name, error.index, error.step))
    np.testing.assert_array_equal(everything(params)["data"], before)
    opt.step(gradients(params, 2))
    return {"said": repr(said), "steps": opt.step_count, "skipped": opt.steps_skipped, **everything(params)}
