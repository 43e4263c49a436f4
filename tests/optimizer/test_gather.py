"""Gradients that a subclass of the buffer finds elsewhere: who asks for them, and how often."""

import numpy as np
import pytest

import nbopt as nb


class Elsewhere(nb.ParameterBuffer):
    """Its gradients lie in a dictionary."""

    def gather_grads(self):
        self._asked = getattr(self, "_asked", 0) + 1
        super().set_grads({name: self._parts[name] for name in self})


@pytest.fixture
def params():
    params = Elsewhere.from_arrays({"w": [1.0, 2.0], "b": [3.0]})
    params._parts = {"w": [0.5, 1.0], "b": [2.0]}
    return params


def test_steps_ask_once(params):
    opt = nb.optimizer.SGD(1.0, params)
    for count in (1, 2, 3):
        opt.step() if count < 3 else opt.minimize(0.0)
        assert params._asked == count
    assert params.to_vector().tolist() == [-0.5, -1.0, -3.0]


def test_steps_ask_after_compile(params):
    opt = nb.optimizer.SGD(1.0, params)
    opt.compile()
    assert not hasattr(params, "_asked")
    opt.step()
    assert params["b"].value.tolist() == [1.0]


READS = {
    "norm": lambda params: nb.clip_grad_norm_(params, 1e9),
    "value": lambda params: nb.clip_grad_value_(params.select("b"), 1e9),
    "vector": lambda params: params.to_vector("grad"),
    "one of two cleared": lambda params: nb.optimizer.SGD(1.0, params["w"]).clear_grad(),
}


@pytest.mark.parametrize("how", READS)
def test_readers_ask(params, how):
    READS[how](params)
    assert params._asked == 1
    assert params["b"].grad.tolist() == [2.0]


def test_values_do_not_ask(params):
    params.to_vector()
    nb.optimizer.SGD(1.0, params).clear_grad()
    assert not hasattr(params, "_asked")
    assert not params.flat_grad.any()


def test_an_error_changes_nothing(params):
    params._parts["b"] = [1.0, 2.0]
    opt = nb.optimizer.SGD(1.0, params)
    with pytest.raises(nb.errors.ParameterError):
        opt.step()
    assert opt.step_count == 0
    assert np.array_equal(params.to_vector(), [1.0, 2.0, 3.0])


@pytest.mark.parametrize("names", [["w", "b"], ["w_g", "w_v"], ["w_g"]])
def test_all_are_cleared_at_once(names):
    """Also by an optimizer of the parts of all weights; one of fewer leaves the others."""
    attrs = {} if "b" in names else {"w": nb.WeightNormParamAttr()}
    arrays = {"w": [3.0, 4.0], "b": [1.0]} if "b" in names else {"w": [3.0, 4.0]}
    params = nb.ParameterBuffer.from_arrays(arrays, attrs)
    opt = nb.optimizer.SGD(1.0, [params[name] for name in names])
    params.flat_grad[:] = 1.0
    opt.clear_grad(set_to_zero=False)
    assert not params.to_vector("grad").any()
    assert not any(params[name].has_grad for name in names)
