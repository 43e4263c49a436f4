"""Weight norm, w = g v / |v|: without a direction, at the ends of the range, of odd shapes and types."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

import nbopt as nb
from nbopt.compat import paddle
from nbopt.compat.jittor import weightnorm as jittor
from nbopt.errors import NonFiniteGradientError, ParameterError
from nbopt.kernels import tables
from tests.hostile import F32, F64, buffer, refused, same


def normed(value, dim=0, dtype="float32"):
    return buffer(dtype, attrs={"*": nb.WeightNormParamAttr(dim=dim)}, w=value)["w"]


class Layer:
    """An object whose attribute is to have weight norm."""

    def __init__(self, weight):
        self.weight = weight


def composed(v, g, dw, dim=0, dtype=F32):
    """w, dL/dv and dL/dg, alike from the functions and from a parameter."""
    v, g, dw = (np.asarray(array, dtype) for array in (v, g, dw))
    w = nb.weight_norm(v, g, dim)
    dv, dg = nb.weight_norm_backward(v, g, dw, dim)
    weight = normed(np.ones_like(v), dim, dtype)
    weight.weight_v.value = v
    weight.weight_g.value = g.reshape(weight.weight_g.shape)
    weight.grad = dw
    same(weight.numpy(), w)
    same(weight.weight_v.grad, dv)
    same(weight.weight_g.grad.reshape(g.shape), dg)
    return w, dv, dg


# --- slices of zeros ------------------------------------------------------------------------------


def zero_slice(magnitude):
    """Of the row [3, 4]: |v| = 5 and, for dw of ones, dv = g/|v| (1 - 1.4 v/|v|)."""
    refused(
        lambda: normed([[0, 0], [3, 4]]), ParameterError, "'w'", "slice 0 along axis 0 is zero", "initializer"
    )
    g = [0.0 if magnitude is None else magnitude, 5.0 if magnitude is None else magnitude]
    w, dv, dg = composed([[0, 0], [3, 4]], g, np.ones((2, 2)))
    same(w[0], F32([0, 0]))
    same(dv[0], F32([0, 0]))
    same(dg[0], F32(0))
    assert_allclose(w[1], g[1] * np.array([0.6, 0.8]), rtol=2**-22)
    assert_allclose(dv[1], g[1] / 5 * np.array([0.16, -0.12]), rtol=1e-6)
    assert_allclose(dg[1], 1.4, rtol=2**-22)
    weight = normed([[1, 0], [3, 4]])
    weight.weight_v.value = [[0, 0], [3, 4]]
    weight.grad = np.ones((2, 2))
    opt = nb.optimizer.SGD(0.1, [weight])
    opt.step()
    assert opt._tables.counters[tables.ZERO_SLICES] == 1
    same(weight.weight_v.value[0], F32([0, 0]))
    same(weight.value[0], F32([0, 0]))
    assert np.isfinite(weight.value).all()


def zero_slice_of_its_norm():
    zero_slice(None)


def zero_slice_of_magnitude_one():
    zero_slice(1.0)


# --- ends of the range ----------------------------------------------------------------------------


def negative_magnitude():
    w, dv, dg = composed([[3, 4]], [-2], np.ones((1, 2)))
    assert_allclose(w, [[-1.2, -1.6]], rtol=2**-22)
    assert_allclose(dv, [[-0.064, 0.048]], rtol=1e-6)
    assert_allclose(dg, [1.4], rtol=2**-22)


def ends_of_the_range(dtype, scale):
    """w and dL/dg do not depend on the scale of v; dL/dv is in inverse proportion."""
    rtol = 8 * float(np.finfo(dtype).eps)
    v = np.array([[3 * scale, 4 * scale], [3, 4]], dtype)
    w, dv, dg = composed(v, [1, 1], np.ones((2, 2)), dtype=dtype)
    assert_allclose(w, [[0.6, 0.8], [0.6, 0.8]], rtol=rtol)
    assert_allclose(dg, [1.4, 1.4], rtol=rtol)
    with np.errstate(over="ignore"):
        expected = np.array([[0.032, -0.024]]) / np.array([[scale], [1.0]])
        assert_allclose(dv, expected.astype(dtype), rtol=1e-6, atol=float(np.finfo(dtype).smallest_subnormal))


def tiny_float32():
    ends_of_the_range(F32, 1e-30)


def small_float32():
    ends_of_the_range(F32, 1e-7)


def huge_float32():
    ends_of_the_range(F32, 1e30)


def tiny_float64():
    ends_of_the_range(F64, 1e-200)


# --- axes -----------------------------------------------------------------------------------------


def bad_axis(dim, error, *words):
    value = np.ones((2, 2))
    refused(lambda: normed(value, dim), error, *words)
    refused(lambda: nb.weight_norm(value, np.ones(2), dim), error, *words)
    refused(lambda: nb.weight_norm_backward(value, np.ones(2), value, dim), error, *words)


def axis_beyond():
    bad_axis(5, ParameterError, "no axis dim=5", "(2, 2)", "0 <= dim < rank")


def axis_below():
    bad_axis(-3, ParameterError, "dim=-3", "0 <= dim < rank")


def axis_minus_one():
    """Refused, as it means three things elsewhere; the compat modules keep the meaning of theirs."""
    bad_axis(-1, ParameterError, "dim=-1", "Paddle", "torch", "Jittor")
    weight = F32([[3, 4], [1, 2]])
    whole = paddle.weight_norm(Layer(weight.copy()), dim=-1)
    assert whole.weight_g.shape == ()
    assert_allclose(whole.weight_g, math.sqrt(30), rtol=2**-22)
    rows = Layer(weight.copy())
    jittor.weight_norm(rows, "weight", -1)
    assert_allclose(rows.weight_g, [[5], [math.sqrt(5)]], rtol=2**-22)


def axis_no_integer():
    bad_axis(1.5, TypeError, "dim", "1.5")


# --- shapes ---------------------------------------------------------------------------------------


def a_number():
    weight = normed(-2.0, None)
    weight.weight_g.value = 3.0
    weight.grad = 1.0
    same(weight.numpy(), F32(-3))
    same(weight.weight_v.grad, F32(0))
    same(weight.weight_g.grad, F32(-1))


def a_number_along_an_axis():
    refused(lambda: normed(-2.0, 0), ParameterError, "'w'", "no axis dim=0", "()")


def a_vector():
    weight = normed([3, 4], None)
    same(weight.weight_g.numpy(), F32([5]))
    w, dv, dg = composed([3, 4], [5], [1, 1], None)
    assert_allclose(w, [3, 4], rtol=2**-22)
    assert_allclose(dv, [0.16, -0.12], rtol=1e-6)
    assert_allclose(dg, [1.4], rtol=2**-22)


def a_vector_along_its_axis():
    same(normed([3, -4]).weight_g.numpy(), F32([3, 4]))
    w, dv, dg = composed([3, -4], [3, 4], [1, 1])
    same(w, F32([3, -4]))
    same(dv + 0.0, F32([0, 0]))
    same(dg, F32([1, -1]))


def no_slices():
    weight = normed(np.zeros((0, 3)))
    assert weight.numpy().shape == (0, 3)
    assert weight.weight_g.numpy().shape == (0, 1)
    assert nb.weight_norm(np.zeros((0, 3)), np.zeros((0, 1)), 0).shape == (0, 3)


def slices_of_nothing():
    weight = normed(np.zeros((2, 0)))
    assert weight.numpy().shape == (2, 0)
    same(weight.weight_g.numpy(), F32([[0], [0]]))
    nb.optimizer.SGD(0.1, [weight]).step()
    same(weight.weight_g.numpy(), F32([[0], [0]]))


# --- applied and removed --------------------------------------------------------------------------


def twice():
    """Paddle's and Jittor's error; a parameter has one attribute, so it cannot have two."""
    once = paddle.weight_norm(Layer(np.ones((2, 2), F32)))
    before = once.weight_g.copy()
    with pytest.raises(RuntimeError, match="two weight_norm hooks"):
        paddle.weight_norm(once)
    layer = Layer(np.ones((2, 2), F32))
    jittor.weight_norm(layer, "weight", -1)
    with pytest.raises(RuntimeError, match="two weight_norm hooks"):
        jittor.weight_norm(layer, "weight", -1)
    same(once.weight_g, before)
    params = nb.ParameterBuffer(seed=0)
    attr = nb.WeightNormParamAttr(dim=0)
    weight = params.create_parameter([2, 2], "w", attr)
    assert params.create_parameter([2, 2], "w", attr) is weight
    refused(
        lambda: params.create_parameter([2, 2], "w", nb.WeightNormParamAttr(dim=1)), ParameterError, "'w'"
    )


def removed_where_absent():
    for remove in (paddle.remove_weight_norm, jittor.remove_weight_norm):
        refused(lambda f=remove: f(Layer(np.ones((2, 2)))), ParameterError, "'weight' not found")


# --- types ----------------------------------------------------------------------------------------


def integers():
    """Refused where the caller's own array would become the weight; a buffer copies the values."""
    for add in (paddle.weight_norm, lambda layer: jittor.weight_norm(layer, "weight", -1)):
        refused(
            lambda f=add: f(Layer(np.array([[3, 4]]))), TypeError, "weight", "float32 or float64", "int64"
        )
    same(normed(np.array([[3, 4]])).weight_g.numpy(), F32([[5]]))


def complex_numbers():
    weight = np.array([[3j, 4]], np.complex64)
    refused(lambda: normed(weight), TypeError, "'w'", "complex64")
    refused(lambda: nb.weight_norm(weight, [1], 0), TypeError, "complex64")
    refused(lambda: paddle.weight_norm(Layer(weight)), TypeError, "complex64")


def half_precision():
    weight = np.float16([[300, 400]])
    refused(lambda: paddle.weight_norm(Layer(weight)), TypeError, "float16")
    same(normed(weight).weight_g.numpy(), F32([[500]]))
    assert_allclose(nb.weight_norm(weight, [1.0], 0), [[0.6, 0.8]], rtol=1e-15)


def half_precision_tiny():
    v = np.float16([[3e-5, 4e-5]])
    a, b = v[0].astype(F64)
    dv, _ = nb.weight_norm_backward(v, [1.0], np.ones((1, 2)), 0)
    assert_allclose(dv, np.array([[b * (b - a), a * (a - b)]]) / math.hypot(a, b) ** 3, rtol=1e-13)
    assert 3000 < dv[0, 0] < 3300


# --- what is no number ----------------------------------------------------------------------------


def bad_element(value, first_row):
    v = F32([[value, 4], [3, 4]])
    w, (dv, dg) = nb.weight_norm(v, [1, 1], 0), nb.weight_norm_backward(v, [1, 1], np.ones((2, 2)), 0)
    assert_allclose(w[0], first_row)
    assert np.isnan(dv[0]).all()
    assert np.isnan(dg[0])
    assert_allclose(w[1], [0.6, 0.8], rtol=2**-22)
    assert_allclose(dv[1], [0.032, -0.024], rtol=1e-6)
    weight = normed([[3, 4], [3, 4]])
    weight.weight_v.value = v
    weight.grad = np.ones((2, 2))
    before = weight.weight_v.numpy(), weight.weight_g.numpy()
    opt = nb.optimizer.SGD(0.1, [weight])
    error = refused(opt.step, NonFiniteGradientError, f"'w_v' is {value}", "(0, 0)")
    assert error.name == "w"
    assert opt.steps_skipped == 1
    same(weight.weight_v.numpy(), before[0])
    same(weight.weight_g.numpy(), before[1])


def a_nan():
    bad_element(math.nan, [math.nan, math.nan])


def an_infinity():
    bad_element(math.inf, [math.nan, 0])
