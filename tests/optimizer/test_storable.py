"""Numbers that the storage dtype cannot hold are refused where they are given."""

import pytest

import nbopt as nb
from nbopt.errors import HyperparameterError

BEYOND = {
    "rate": ({"learning_rate": 1e300}, "learning_rate"),
    "momentum": ({"momentum": 1.0 - 1e-9}, "momentum"),
    "decay": ({"weight_decay": 1e39}, "weight_decay"),
    "l1": ({"weight_decay": nb.regularizer.L1Decay(1e39)}, "weight_decay"),
    "rescale": ({"rescale_grad": 1e300}, "rescale_grad"),
}


def buffer(dtype):
    return nb.ParameterBuffer.from_arrays({"w": [1.0]}, dtype=dtype)


@pytest.mark.parametrize(("given", "name"), BEYOND.values(), ids=BEYOND)
def test_beyond_float32(given, name):
    with pytest.raises(HyperparameterError, match=f"{name}.*float32"):
        nb.optimizer.Momentum(parameters=buffer("float32"), **given)
    assert nb.optimizer.Momentum(parameters=buffer("float64"), **given).step_count == 0


@pytest.mark.parametrize(("given", "name"), BEYOND.values(), ids=BEYOND)
def test_edits_beyond_float32(given, name):
    opt = nb.optimizer.Momentum(parameters=buffer("float32"))
    before = dict(opt.param_groups[0])
    with pytest.raises(HyperparameterError, match=f"{name}.*float32"):
        opt.param_groups[0].update(given)
    assert dict(opt.param_groups[0]) == before
    with pytest.raises(HyperparameterError, match=r"learning_rate.*float32"):
        opt.set_lr(1e300)
    assert opt.get_lr() == 0.001
