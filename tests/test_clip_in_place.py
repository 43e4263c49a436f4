"""Clipping in place, of the gradients of parameters: p-norms, ranges, forms of input and errors.

Ids such as N09 and V05 are rows of a table of hostile inputs, collected from other libraries.
"""

import math

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nbopt as nb
from nbopt.errors import HyperparameterError, NonFiniteGradientError, ParameterError
from tests.kernels import bits, draw

NAN, INF = math.nan, math.inf

by_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def buffer(grads, dtype="float64"):
    params = nb.ParameterBuffer.from_arrays({n: np.zeros(np.shape(g)) for n, g in grads.items()}, dtype=dtype)
    params.set_grads(grads)
    return params


@by_dtype
@pytest.mark.parametrize("order", [1, 1.5, 2, 3, 50, INF], ids=str)
def test_norm_in_place(order, dtype):
    """The p-norm is right, is brought to the limit, and stays below it; a second clip changes nothing."""
    rng = np.random.default_rng(7)
    for _ in range(25):
        grads = draw(rng, dtype)
        params = buffer(grads, dtype)
        joined = params.to_vector("grad").astype(np.longdouble)
        exact = np.max(np.abs(joined), initial=0)
        if order != INF and exact > 0:
            exact *= np.sum((np.abs(joined) / exact) ** order) ** (1 / np.longdouble(order))
        limit = float(exact * rng.uniform(0.01, 1.5))
        total = nb.clip_grad_norm_(params, limit, order)
        assert type(total) is float
        assert total == pytest.approx(float(exact), rel=1e-14)
        once = params.to_vector("grad")
        if exact <= limit:
            assert bits(once) == bits(joined.astype(dtype))
        else:
            factor = limit / float(exact)
            np.testing.assert_allclose(once, joined.astype(np.float64) * factor, rtol=4e-7, atol=0)
            assert nb.clip_grad_norm_(params, INF, order) <= limit
        nb.clip_grad_norm_(params, limit, order)
        assert bits(params.to_vector("grad")) == bits(once)


@by_dtype
def test_norm_in_place_has_the_bits_of_the_clip(dtype):
    rng = np.random.default_rng(8)
    for _ in range(25):
        grads = draw(rng, dtype)
        params, total = buffer(grads, dtype), nb.norm(np.concatenate([g.ravel() for g in grads.values()]))
        assert nb.clip_grad_norm_(params, total / 3) == pytest.approx(total, rel=1e-14)
        clipped = nb.ClipGradByGlobalNorm(total / 3)(grads)
        assert {n: bits(p.grad) for n, p in params.items()} == {n: bits(clipped[n]) for n in params}


@pytest.mark.parametrize(
    ("element", "order", "limit", "total"),
    [
        pytest.param(1e200, 2, 1.0, 2e200, id="N17"),
        pytest.param(1.7e308, 2, 1.0, INF, id="N16d"),
        pytest.param(1.7e308, 1, 1.0, INF, id="N16d-order-1"),
        pytest.param(1.7e308, 3, 1.0, INF, id="N16d-order-3"),
        pytest.param(1e-200, 3, 1e-201, 4 ** (1 / 3) * 1e-200, id="N04-order-3"),
    ],
)
def test_range_in_place(element, order, limit, total):
    params = buffer({"w": [element] * 4})
    assert nb.clip_grad_norm_(params, limit, order, error_if_nonfinite=True) == pytest.approx(total, abs=0)
    np.testing.assert_allclose(params["w"].grad, [limit * 4 ** (-1 / order)] * 4, rtol=1e-12)


def test_limits_of_norm_in_place():
    params = buffer({"a": [3.0, -4.0], "b": [0.0]})
    assert nb.clip_grad_norm_(params, 5.0) == nb.clip_grad_norm_(params, INF) == 5.0
    assert_array_equal(params["a"].grad, [3.0, -4.0])
    assert nb.clip_grad_norm_(params["a"], 0.0) == 5.0
    assert_array_equal(params["a"].grad, [0.0, 0.0])
    assert nb.clip_grad_norm_(params, 1.0) == nb.clip_grad_norm_(params, 0.0, 1) == 0.0


@pytest.mark.parametrize("order", [1, 2, 3, INF])
@pytest.mark.parametrize(
    ("grads", "total", "bad"),
    [
        ({"a": [1.0, 2.0], "b": [[1.0], [NAN]]}, NAN, ("b", (1, 0))),
        ({"a": [1.0, NAN], "b": [[1.0], [2.0]]}, NAN, ("a", (1,))),
        ({"a": [-INF, 2.0], "b": [[1.0], [2.0]]}, INF, ("a", (0,))),
        ({"a": [1.0, 2.0], "b": [[NAN], [INF]]}, NAN, ("b", (0, 0))),
        ({"a": [INF, 2.0], "b": [[NAN], [1.0]]}, NAN, ("a", (0,))),
    ],
    ids=str,
)
def test_nonfinite_gradients_in_place(grads, total, bad, order):  # N08, N09b, N09c
    params = buffer(grads)
    with pytest.raises(NonFiniteGradientError, match=f"'{bad[0]}'") as caught:
        nb.clip_grad_norm_(params, 1.0, order, error_if_nonfinite=True)
    assert (caught.value.name, caught.value.index) == bad
    assert {n: bits(p.grad) for n, p in params.items()} == {n: bits(g) for n, g in grads.items()}
    assert_array_equal(nb.clip_grad_norm_(params, 1.0, order), total)


@pytest.mark.parametrize(
    "take",
    [
        pytest.param(lambda p: p, id="buffer"),
        pytest.param(lambda p: list(p.values()), id="list"),
        pytest.param(lambda p: [*p.values(), p["a"]], id="twice"),
        pytest.param(lambda p: (q for q in p.values()), id="generator"),
        pytest.param(lambda p: p.select("*"), id="select"),
    ],
)
def test_forms_of_params(take):
    params = buffer({"a": [3.0, 0.0], "b": [0.0, 4.0]})
    assert nb.clip_grad_norm_(take(params), 10.0) == 5.0
    nb.clip_grad_value_(take(params), 3.5)
    assert_array_equal(params.to_vector("grad"), [3.0, 0.0, 0.0, 3.5])


def test_no_parameters():  # N24
    assert nb.clip_grad_norm_([], 1.0) == 0.0
    nb.clip_grad_value_([], 1.0)


@by_dtype
def test_value_in_place(dtype):
    params = buffer({"w": np.array([-3, 0.5, NAN, INF], dtype), "x": np.ones((2, 0), dtype)}, dtype)
    nb.clip_grad_value_(params, 1e300)
    assert_array_equal(
        params["w"].grad, np.array([-3, 0.5, NAN, 1e300 if dtype == "float64" else INF], dtype)
    )
    nb.clip_grad_value_(params, 1.0)
    assert_array_equal(params["w"].grad, [-1, 0.5, NAN, 1])
    nb.clip_grad_value_(params, 0)
    assert_array_equal(params["w"].grad, [0, 0, NAN, 0])


def test_weight_norm_in_place_acts_on_the_gradient_of_w():
    attrs = {"w": nb.WeightNormParamAttr(dim=0)}
    params = nb.ParameterBuffer.from_arrays({"w": np.eye(2)}, attrs=attrs)
    params["w"].grad = [[3.0, 0.0], [0.0, 4.0]]
    assert nb.clip_grad_norm_(params, 1.0) == 5.0
    assert nb.norm(params["w"].grad) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("function", [nb.clip_grad_norm_, nb.clip_grad_value_])
def test_computed_gradients_are_refused(function):
    attrs = {"w": nb.WeightNormParamAttr(dim=0)}
    params = nb.ParameterBuffer.from_arrays({"b": [9.0], "w": np.eye(2)}, attrs=attrs)
    params.set_grads({"b": [9.0], "w": np.eye(2)})
    with pytest.raises(ParameterError, match="'w_v'"):
        function([params["b"], params["w"].weight_v], 0.1)
    assert params["b"].grad == [9.0]


@pytest.mark.parametrize(
    ("function", "arguments", "error", "words"),
    [
        pytest.param(nb.clip_grad_norm_, (-1.0,), HyperparameterError, "max_norm", id="N14"),
        pytest.param(nb.clip_grad_norm_, (NAN,), HyperparameterError, "max_norm", id="N15"),
        pytest.param(nb.clip_grad_norm_, (1.0, 0), HyperparameterError, "norm_type", id="N22"),
        pytest.param(nb.clip_grad_norm_, (1.0, -2), HyperparameterError, "norm_type", id="N22b"),
        pytest.param(nb.clip_grad_norm_, (1.0, NAN), HyperparameterError, "norm_type", id="N22c"),
        pytest.param(nb.clip_grad_norm_, ("1.0",), TypeError, "max_norm", id="N23"),
        pytest.param(nb.clip_grad_norm_, (1.0, "inf"), TypeError, "norm_type", id="type-string"),
        pytest.param(nb.clip_grad_norm_, (1.0, 2.0, 1), TypeError, "error_if_nonfinite", id="flag"),
        pytest.param(nb.clip_grad_value_, (-1.0,), HyperparameterError, "clip_value", id="V03"),
        pytest.param(nb.clip_grad_value_, (NAN,), HyperparameterError, "clip_value", id="V04"),
        pytest.param(nb.clip_grad_value_, (None,), TypeError, "clip_value", id="None"),
    ],
)
def test_bad_arguments_are_refused(function, arguments, error, words):
    params = buffer({"w": [3.0, 4.0]})
    with pytest.raises(error, match=words):
        function(params, *arguments)
    assert_array_equal(params["w"].grad, [3.0, 4.0])


@pytest.mark.parametrize("function", [nb.clip_grad_norm_, nb.clip_grad_value_])
@pytest.mark.parametrize("params", [None, "w", [np.ones(2)], {"w": [1.0]}, 3], ids=repr)
def test_what_is_no_parameter_is_refused(function, params):
    with pytest.raises(TypeError, match="Parameter"):
        function(params, 1.0)


@pytest.mark.parametrize("flag", [False, True])
def test_an_order_whose_norm_overflows_is_refused(flag):
    params = buffer({"w": [1.0] * 4})
    with pytest.raises(HyperparameterError, match="norm_type"):
        nb.clip_grad_norm_(params, 1.0, 1e-3, error_if_nonfinite=flag)
    assert_array_equal(params["w"].grad, [1.0] * 4)
