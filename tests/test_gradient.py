"""Gradients as written against slopes of the loss: what is wrong is found and named."""

import math

import numpy as np
import pytest

import nbopt as nb
from nbopt.errors import ParameterError

FLOATS = ("float32", "float64")


class Network:
    """Two layers on fixed data, the first weight-normed; its gradient written with a planted bug."""

    def __init__(self, dtype="float64", smooth=False, seed=0):
        self.params = nb.ParameterBuffer(dtype, seed=seed)
        attr = nb.WeightNormParamAttr(dim=1)
        self.params.create_parameter([8, 12], name="w1", attr=attr)
        self.params.create_parameter([12], name="b1", is_bias=True)
        self.params.create_parameter([12, 1], name="w2")
        rng = np.random.default_rng(seed)
        self.x = rng.normal(size=(40, 8)).astype(dtype)
        self.y = rng.normal(size=(40, 1)).astype(dtype)
        self.smooth = smooth

    def __call__(self, params, bug=""):
        w1, b1, w2 = params.values()
        before = self.x @ w1.value + b1.value
        hidden = np.tanh(before) if self.smooth else np.maximum(before, 0)
        residual = hidden @ w2.value - self.y
        slope = 1 - hidden**2 if self.smooth else before > 0
        delta = 2 * residual / len(self.x)
        w2.grad = hidden.T @ delta
        delta = (delta @ w2.value.T) * slope
        g1, gb = self.x.T @ delta, delta.sum(axis=0)
        if bug == "half":
            g1 *= 0.5
        elif bug == "sign":
            gb = -gb
        elif bug == "element":
            g1[5, 7] *= 1.5
        elif bug == "unwritten":
            gb[:] = 0
        elif bug == "nan":
            g1[2, 3] = np.nan
        elif bug == "term":
            gb = gb + 0.3 * b1.value + 0.1
        w1.grad, b1.grad = g1, gb
        return (residual**2).mean()


BUGS = {
    "half": ("w1", 0.5, None, "0.5 times the slope throughout"),
    "sign": ("b1", -1.0, None, "the sign is turned throughout"),
    "element": ("w1", 1.5, (5, 7), "in part of the elements"),
    "unwritten": ("b1", 0.0, None, "all zeros: is it written"),
    "term": ("b1", None, None, "by different factors"),
}


@pytest.mark.parametrize("smooth", [False, True], ids=["relu", "tanh"])
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found_and_named(bug, smooth):
    net = Network(smooth=smooth)
    report = nb.check_gradient(net, net.params, args=(bug,))
    name, ratio, index, hint = BUGS[bug]
    row = report[name]
    assert [r.verdict for r in report] == ["wrong" if r.name == name else "ok" for r in report]
    assert not report.ok
    assert ratio is None or row.ratio == pytest.approx(ratio, rel=1e-4)
    assert index is None or row.index == index
    assert row.hint.startswith(hint)
    assert hint in str(report)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("seed", range(10))
def test_a_right_gradient_is_never_called_wrong(seed, dtype):
    for smooth in (False, True):
        net = Network(dtype, smooth, seed)
        report = nb.check_gradient(net, net.params, seed=seed)
        assert "wrong" not in [row.verdict for row in report], report
        if dtype == "float64" or smooth:
            assert report.ok, report


@pytest.mark.parametrize("bug", ["half", "sign", "unwritten"])
def test_float32_finds_what_is_gross(bug):
    for seed in range(5):
        net = Network("float32", seed=seed)
        assert nb.check_gradient(net, net.params, args=(bug,))[BUGS[bug][0]].verdict == "wrong"


def test_a_small_error_of_a_float32_gradient_passes_and_a_tighter_tolerance_finds_it():
    net = Network("float64", smooth=True)

    def off(params):
        loss = net(params)
        params["w2"].grad *= 1.001
        return loss

    assert nb.check_gradient(off, net.params, rtol=1e-2).ok
    assert nb.check_gradient(off, net.params)["w2"].ratio == pytest.approx(1.001, rel=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
def test_nothing_of_the_buffer_changes(dtype):
    net = Network(dtype)
    params = net.params
    params["w1"].grad = np.ones((8, 12))
    params["b1"].clear_grad(set_to_zero=False)
    opt = nb.optimizer.Momentum(0.1, 0.9, params)
    prints, weights, grads = params.fingerprint(), params.to_vector(), params.to_vector("grad")
    nb.check_gradient(net, params)
    assert params.fingerprint() == prints
    np.testing.assert_array_equal(params.to_vector(), weights)
    np.testing.assert_array_equal(params.to_vector("grad"), grads)
    before = params["b1"].numpy()
    opt.step()
    np.testing.assert_array_equal(params["b1"].numpy(), before)  # absent still


def test_it_is_restored_when_the_function_fails():
    net = Network()
    calls = []

    def fails(params):
        calls.append(1)
        if len(calls) > 9:
            raise ZeroDivisionError
        return net(params)

    prints, grads = net.params.fingerprint(), net.params.to_vector("grad")
    with pytest.raises(ZeroDivisionError):
        nb.check_gradient(fails, net.params)
    assert net.params.fingerprint() == prints
    np.testing.assert_array_equal(net.params.to_vector("grad"), grads)


def test_a_nan_that_is_written_is_located():
    net = Network()
    row = nb.check_gradient(net, net.params, args=("nan",))["w1"]
    assert (row.verdict, row.index) == ("wrong", (2, 3))
    assert math.isnan(row.written)


def test_a_function_of_chance_is_named():
    params = nb.ParameterBuffer.from_arrays({"w": np.ones(3)})
    rng = np.random.default_rng(0)

    def noisy(params):
        params["w"].grad[:] = 1.0
        return params["w"].value.sum() + rng.normal()

    report = nb.check_gradient(noisy, params)
    assert report.noise > 0
    assert "not repeatable" in str(report)
    assert report["w"].verdict == "unclear"


def test_a_constant_and_an_unused_parameter_pass():
    params = nb.ParameterBuffer.from_arrays({"w": np.ones((2, 3)), "unused": np.zeros(4), "scalar": 2.0})

    def fun(params):
        params["scalar"].grad = 2 * params["scalar"].value
        return params["scalar"].value ** 2 + 5.0

    report = nb.check_gradient(fun, params)
    assert report.ok, report
    assert report["unused"].ratio == 1.0


def squares(dtype, offset, factor=1.0):
    """A loss far from 0, its gradient off by a factor."""
    params = nb.ParameterBuffer.from_arrays({"w": np.random.default_rng(0).normal(size=50)}, dtype=dtype)

    def fun(params):
        w = params["w"]
        w.grad = 2.0 * factor * w.value
        return (w.value**2).sum() + offset

    return fun, params


@pytest.mark.parametrize("factor", [1.0, 0.5])
@pytest.mark.parametrize("offset", [1e6, 1e9])
def test_losses_that_rounding_made_equal_tell_nothing(offset, factor):
    fun, params = squares("float32", offset, factor)
    assert nb.check_gradient(fun, params)["w"].verdict == "unclear"
    fun, params = squares("float64", offset, factor)
    assert nb.check_gradient(fun, params).ok == (factor == 1.0)


def test_a_loss_formed_in_float32_of_float64_parameters():
    fun, params = squares("float64", 1e6)
    assert nb.check_gradient(lambda params: np.float32(fun(params)), params)["w"].verdict == "unclear"


def test_a_factor_that_some_slopes_are_too_uncertain_to_show_is_one_throughout():
    fun, params = squares("float32", 0.0, 1.015)
    row = nb.check_gradient(fun, params)["w"]
    assert row.hint.startswith("1.015 times the slope throughout")


def test_a_loss_that_does_not_read_the_parameters():
    params = nb.ParameterBuffer.from_arrays({"w": np.ones(5)})
    copy = params["w"].numpy()

    def fun(params):
        params["w"].grad = 2.0 * copy
        return (copy**2).sum()

    row = nb.check_gradient(fun, params)["w"]
    assert (row.verdict, row.ratio) == ("wrong", math.inf)
    assert row.hint.startswith("the loss does not change with it")


@pytest.mark.parametrize("power", [200, 300, -200, -300])
def test_slopes_whose_squares_leave_the_range(power):
    params = nb.ParameterBuffer.from_arrays({"w": np.arange(1.0, 7.0)})

    def fun(params, factor):
        params["w"].grad = factor * 10.0**power * np.cos(params["w"].value)
        return 10.0**power * np.sin(params["w"].value).sum()

    assert nb.check_gradient(fun, params, args=1.0).ok
    assert nb.check_gradient(fun, params, args=2.0)["w"].ratio == pytest.approx(2.0, rel=1e-4)


def test_values_too_small_to_step_from_tell_nothing():
    params = nb.ParameterBuffer.from_arrays({"w": [5e-324, 5e-324]})

    def fun(params):
        params["w"].grad = [1.0, 1.0]
        return float(params["w"].value.sum())

    assert [row.verdict for row in nb.check_gradient(fun, params)] == ["unclear"]


def test_elements_of_units_of_their_own():
    """A step of the size of the others leaves where the logarithm is straight."""
    params = nb.ParameterBuffer.from_arrays({"w": [1e-8, 1e8, 1.0, 1e4]})

    def fun(params, factor):
        x = params["w"].value
        params["w"].grad = 2 * factor * np.log(np.abs(x)) / x
        return (np.log(np.abs(x)) ** 2).sum()

    assert nb.check_gradient(fun, params, args=1.0).ok
    assert nb.check_gradient(fun, params, args=0.5)["w"].ratio == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e6])
def test_any_scale_of_values_and_losses(scale):
    params = nb.ParameterBuffer.from_arrays({"w": scale * np.array([1.0, -2.0, 3e-3, 40.0])})

    def fun(params, factor):
        x = params["w"].value / scale
        params["w"].grad = factor * np.cos(x) / scale
        return np.sin(x).sum()

    assert nb.check_gradient(fun, params, args=(1.0,)).ok
    assert nb.check_gradient(fun, params, args=(2.0,))["w"].ratio == pytest.approx(2.0, rel=1e-4)


def test_what_is_chosen():
    net = Network()
    net.params["w2"].trainable = False
    assert [row.name for row in nb.check_gradient(net, net.params)] == ["w1", "b1"]
    assert [row.name for row in nb.check_gradient(net, net.params, names="b*")] == ["b1"]
    report = nb.check_gradient(net, net.params)
    assert report["w1"].shape == (8, 12)
    assert len(report) == 2
    with pytest.raises(KeyError, match="no row of 'w2'"):
        report["w2"]


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda p: nb.check_gradient(1.0, p), TypeError, "fun must be callable, got float"),
        (lambda p: nb.check_gradient(lambda q: 1.0, {"w": 1}), TypeError, "params must be a ParameterBuffer"),
        (lambda p: nb.check_gradient(lambda q: None, p), TypeError, "fun must return the loss"),
        (lambda p: nb.check_gradient(lambda q: np.ones(2), p), TypeError, "fun must return the loss"),
        (lambda p: nb.check_gradient(lambda q: (1.0, q), p), TypeError, "the loss alone, got a tuple of 2"),
        (lambda p: nb.check_gradient(lambda q: 1.0, p, name="w"), TypeError, "did you mean 'names'"),
        (lambda p: nb.check_gradient(lambda q: math.nan, p), ParameterError, "finite loss"),
        (lambda p: nb.check_gradient(lambda q: 1.0, p, names="x*"), ParameterError, "chooses no parameter"),
        (lambda p: nb.check_gradient(lambda q: 1.0, p, rtol=0.0), ValueError, "rtol"),
        (lambda p: nb.check_gradient(lambda q: 1.0, p, coordinates=0), ValueError, "coordinates"),
        (lambda p: nb.check_gradient(moving, p), ParameterError, "must not change the parameters"),
    ],
)
def test_wrong_arguments(call, error, match):
    params = nb.ParameterBuffer.from_arrays({"w": np.ones(3)})
    prints = params.fingerprint()
    with pytest.raises(error, match=match):
        call(params)
    assert params.fingerprint() == prints


def moving(params):
    params["w"].value += 1.0
    return 1.0


def test_a_kink_close_by_is_stepped_under():
    """Steps of 1e-4 of the size see both of its sides, and agree on the slope between them."""
    params = nb.ParameterBuffer.from_arrays({"w": [1.0, 1.0]})

    def fun(params):
        w = params["w"].value
        params["w"].grad = np.where(w > 1.00003, 3.0, 1.0)
        return np.where(w > 1.00003, 3.0 * w - 2 * 1.00003, w).sum()

    assert nb.check_gradient(fun, params).ok
