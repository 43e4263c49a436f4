"""`ExponentialMovingAverage` against the same in plain NumPy, and against its definition."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nbopt as nb
from nbopt.errors import HyperparameterError
from nbopt.kernels import scalars
from tests.averaging import Exponential, applied, buffer, normed_buffer, same_bits

FLOATS = ["float32", "float64"]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("decay", [0.0, 0.3, 0.5, 0.9, 0.999])
def test_random_runs(decay, dtype):
    params = buffer(dtype)
    average = nb.ExponentialMovingAverage(decay, params)
    oracles = {name: Exponential(p.numpy()) for name, p in params.items()}
    rng = np.random.default_rng(0)
    for _ in range(30):
        for name, p in params.items():
            p.value = rng.normal(size=p.shape)
            oracles[name].update(p.value, decay)
        average.update()
        state = {}
        for name in params:
            state |= oracles[name].state(name)
        same_bits(average.state_dict(), state)
        got = applied(params, average)
        for name, p in params.items():
            assert_array_equal(got[name], oracles[name].average(p.value), strict=True)
            assert_allclose(got[name], oracles[name].mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("decay", [0.5, 0.999, 1 - 2.0**-20])
def test_the_average_of_a_constant_is_the_constant(decay, dtype):
    """Also right at the start: the zeros that it starts from have no weight."""
    params = buffer(dtype)
    average = nb.ExponentialMovingAverage(decay, params)
    for _ in range(5):
        average.update()
        got = applied(params, average)
        for name, p in params.items():
            assert_allclose(got[name], p.value, rtol=8 * np.finfo(dtype).eps)


def test_the_formulas():
    assert scalars.decayed(2.0, 6.0, 0.75, 0.25) == 3.0
    assert scalars.unbiased(3.0, 0.5) == 6.0


# --- the number of steps --------------------------------------------------------------------------


def decays(average, params, updates):
    """The decays that were used, from the weights: weight' = d weight + 1 - d."""
    found, before = [], 0.0
    for _ in range(updates):
        average.update()
        weight = average.state_dict()["b.ema_weight"]
        found.append((1.0 - weight) / (1.0 - before))
        before = weight
    return found


def test_a_callable_is_called_at_each_update():
    params = buffer()
    opt = nb.optimizer.SGD(0.1, parameters=params)
    average = nb.ExponentialMovingAverage(0.3, params, thres_steps=lambda: opt.step_count)
    for _ in range(5):
        opt.step()
        average.update()
    expected = 1 - np.prod([2 / 11, 3 / 12, 0.3, 0.3, 0.3])
    assert_allclose(average.state_dict()["b.ema_weight"], expected)


def test_an_array_of_one_element_is_read_at_each_update():
    params, count = buffer(), np.array([0])
    average = nb.ExponentialMovingAverage(0.9, params, thres_steps=count)
    average.update()
    assert_allclose(average.state_dict()["b.ema_weight"], 0.9)
    count += 1
    average.update()
    assert_allclose(average.state_dict()["b.ema_weight"], 1 - 0.1 * 2 / 11)


def test_a_number_bounds_the_decay():
    params = buffer()
    for steps, decay in ((0, 0.1), (8, 0.5), (10**9, 0.9)):
        average = nb.ExponentialMovingAverage(0.9, params, thres_steps=steps)
        assert_allclose(decays(average, params, 3), [decay] * 3)


def test_with_steps_a_constant_stays_one():
    """One minus the product of the decays; Paddle takes a power of the last one."""
    params, count = buffer(), np.array([0])
    average = nb.ExponentialMovingAverage(0.9, params, thres_steps=count)
    for _ in range(20):
        average.update()
        count += 1
    got = applied(params, average)
    for name, p in params.items():
        assert_allclose(got[name], p.value, rtol=1e-14)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (lambda: -1, HyperparameterError),
        (lambda: float("nan"), HyperparameterError),
        (lambda: "3", TypeError),
    ],
    ids=["negative", "nan", "string"],
)
def test_a_callable_that_gives_no_number_of_steps(given, error):
    params = buffer()
    average = nb.ExponentialMovingAverage(0.9, params, thres_steps=given)
    before = average.state_dict()
    with pytest.raises(error, match="thres_steps"):
        average.update()
    same_bits(average.state_dict(), before)


# --- what is taken in -----------------------------------------------------------------------------


def test_frozen_and_absent_parameters_are_taken_in():
    """Running statistics never train, and Paddle averages them, too."""
    params = buffer(b=nb.ParamAttr(trainable=False), one=nb.ParamAttr(do_model_average=False))
    params["w"].clear_grad(set_to_zero=False)
    average = nb.ExponentialMovingAverage(0.5, params)
    average.update()
    state = average.state_dict()
    assert [state[f"{name}.ema_weight"] for name in ("w", "b", "one")] == [0.5, 0.5, 0.0]
    params["b"].value += 3
    average.update()
    live = params.numpy()
    got = applied(params, average)
    assert_allclose(got["b"], live["b"] - 1)
    assert_array_equal(got["one"], live["one"])


def test_a_part_of_the_parameters():
    params = buffer()
    average = nb.ExponentialMovingAverage(0.5, params["b"])
    average.update()
    assert set(average.state_dict()) == {"b.ema", "b.ema_weight"}
    assert np.count_nonzero(average._sums) == params["b"].size
    params["w"].value += 1
    live = params.numpy()
    assert_array_equal(applied(params, average)["w"], live["w"])


def test_each_parameter_has_its_own_weight():
    """One that joins later is not biased towards zero."""
    params = buffer()
    params["b"].do_model_average = False
    average = nb.ExponentialMovingAverage(0.5, params)
    average.update()
    params["b"].do_model_average = True
    average.update()
    state = average.state_dict()
    assert (state["w.ema_weight"], state["b.ema_weight"]) == (0.75, 0.5)
    assert_array_equal(applied(params, average)["b"], params["b"].value)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm(dim, dtype):
    params = normed_buffer(dtype, dim)
    w = params["w"]
    opt = nb.optimizer.Momentum(0.1, parameters=params)
    average = nb.ExponentialMovingAverage(0.75, params)
    oracles = {part.name: Exponential(part.numpy()) for part in w._moved}
    rng = np.random.default_rng(0)
    for _ in range(5):
        opt.step({"w": rng.normal(size=w.shape)})
        average.update()
        for part in w._moved:
            oracles[part.name].update(part.value, 0.75)
    data = params._seal().data.tobytes()
    got = applied(params, average)
    assert params._seal().data.tobytes() == data
    for part in w._moved:
        assert_array_equal(got[part.name], oracles[part.name].average(part.value), strict=True)
    assert_array_equal(got["w"], nb.weight_norm(got["w_v"], got["w_g"], dim), strict=True)
