"""Weight-normed parameters: w = g v / |v|, where w is read, g and v move, and dL/dw is written."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nbopt as nb
from nbopt.errors import ParameterError
from nbopt.initializer import Assign, Constant, Dirac, Normal

NORMED = nb.WeightNormParamAttr
DTYPES = ["float32", "float64"]
ROUNDING = {"float32": 4 * np.finfo(np.float32).eps, "float64": 8 * np.finfo(np.float64).eps}
TABLE = ("kept", "reduced", "whole tensor", "last axis", "nbopt", "Paddle", "torch", "Jittor")

SHAPES = [(5,), (3, 4), (7, 1), (2, 3, 4), (3, 2, 2, 3)]
# The last ones are longer than a block of rows (256), of elements (4096), and a tile (512).
CASES = [(shape, dim) for shape in SHAPES for dim in (None, *range(len(shape)))]
CASES += [((), None), ((600, 5), 1), ((3, 5000), 0), ((70, 90), None), ((300, 2, 300), 1)]
CASES += [((2, 2, 1030), 1), ((33_000,), None), ((1, 4), 0)]  # pieces of long slices; one slice
case = pytest.mark.parametrize(("shape", "dim"), CASES, ids=[f"{s} {d}" for s, d in CASES])
dtypes = pytest.mark.parametrize("dtype", DTYPES)
sealing = pytest.mark.parametrize("sealed", [False, True], ids=["open", "sealed"])


def refused(call, error, words):
    """Check that `call` raises exactly `error`, and that the message holds all `words`."""
    with pytest.raises(error) as caught:
        call()
    assert caught.type is error
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"


def create(shape, dim, dtype="float32", sealed=False, initializer=None):
    params = nb.ParameterBuffer(dtype, seed=5)
    w = params.create_parameter(shape, "w", NORMED(dim=dim, initializer=initializer or Normal()))
    if sealed:
        _ = params.flat  # lays the storage out
    return params, w


def total(array, dim):
    """Sum over all axes but the kept one, in extended precision and pairwise."""
    array = np.longdouble(array)
    if dim is None:
        return array.reshape(-1).sum().reshape((1,) * array.ndim)
    sums = np.moveaxis(array, dim, 0).reshape(array.shape[dim], -1).sum(axis=1)
    return sums.reshape([-1 if axis == dim else 1 for axis in range(array.ndim)])


def length(array, dim):
    return np.sqrt(total(np.longdouble(array) ** 2, dim))


def composed(v, g, dim):
    v, g = np.longdouble(v), np.longdouble(g)
    return g * v / length(v, dim)


def backward(v, g, d, dim):
    """(dL/dv, dL/dg) (Salimans and Kingma 2016, equation 3), and how large the terms of each are."""
    v, g, d = (np.longdouble(a) for a in (v, g, d))
    norm = length(v, dim)
    dg, terms = total(v * d, dim) / norm, total(abs(v * d), dim) / norm
    return (g / norm * (d - dg / norm * v), dg), (abs(g / norm) * (abs(d) + terms / norm * abs(v)), terms)


def draw(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape)


# --- creation --------------------------------------------------------------------------------------


@dtypes
@case
def test_the_first_weight_is_what_the_initializer_drew(shape, dim, dtype):
    params, w = create(shape, dim, dtype)
    drawn = nb.ParameterBuffer(dtype, seed=5).create_parameter(shape, "w", Normal()).numpy()
    v, g = w.weight_v, w.weight_g
    assert (w.name, v.name, g.name) == ("w", "w_v", "w_g")
    assert (w.shape, v.shape) == (shape, shape)
    assert g.shape == tuple(n if axis == dim else 1 for axis, n in enumerate(shape))
    assert (w.dim, w.attr.dim) == (dim, dim)
    assert_array_equal(v.numpy(), drawn)
    assert_allclose(g.numpy(), length(drawn, dim), rtol=ROUNDING[dtype])
    before = w.numpy()  # composed on the fly
    assert_allclose(before, drawn, rtol=1e-6)
    assert_array_equal(w.value, before)
    for p in (w, v, g):
        assert p.value.dtype == p.grad.dtype == p.dtype == dtype
        assert_array_equal(p.grad, np.zeros(p.shape))
        assert p.has_grad
        assert params[p.name] is p


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 2)], ids=str)
def test_empty_weights(shape):
    for dim in (None, *range(len(shape))):
        params, w = create(shape, dim)
        assert w.numpy().shape == w.weight_v.grad.shape == w.value.shape == shape
        assert_array_equal(w.weight_g.grad, np.zeros(w.weight_g.shape))
        params.recompose()


def identity(rows, columns):
    return Assign(np.eye(rows, columns))


ZERO_SLICES = {
    "whole": ([2, 3], None, Constant(0.0), ["whole tensor"]),
    "a scalar": ([], None, Constant(0.0), ["whole tensor"]),
    "every row": ([2, 3], 0, Constant(0.0), ["slice 0", "axis 0", "2 of 2"]),
    "a row": ([4, 3], 0, identity(4, 3), ["slice 3", "axis 0", "1 of 4"]),
    "columns": ([3, 5], 1, identity(3, 5), ["slice 3", "axis 1", "2 of 5"]),
    "an element": ([3], 0, Assign([1.0, 0.0, 2.0]), ["slice 1", "axis 0"]),
    "a channel": ([2, 3, 1, 1], 1, Dirac(), ["slice 2", "axis 1", "1 of 3"]),
    "negative zero": ([2], 0, Assign([1.0, -0.0]), ["slice 1", "axis 0"]),
    "too small": ([2], 0, Assign([1.0, 1e-60]), ["slice 1", "axis 0"]),  # 0 in float32
}


@pytest.mark.parametrize(("shape", "dim", "initializer", "words"), ZERO_SLICES.values(), ids=ZERO_SLICES)
def test_a_zero_slice_is_an_error_at_creation(shape, dim, initializer, words):
    params = nb.ParameterBuffer()
    attr = NORMED(dim=dim, initializer=initializer)
    words = ["'fc.w'", "zero", "initializer", *words]
    refused(lambda: params.create_parameter(shape, "fc.w", attr), ParameterError, words)
    assert len(params) == 0
    assert "fc.w_v" not in params
    params.create_parameter(shape, "fc.w", Normal())  # the name is free


def test_a_bias_starts_at_zero_and_a_given_array_may():
    params = nb.ParameterBuffer()
    words = ["'b'", "a bias starts at zero", "initializer"]
    refused(lambda: params.create_parameter([2], "b", NORMED(), True), ParameterError, words)
    assert params.create_parameter([2], "b", NORMED(), True, Normal()).weight_g.numpy() > 0
    assert params.create_parameter([0], "nothing", NORMED(), True).size == 0
    arrays, attrs = {"a": [1.0], "w": [[1.0], [0.0]]}, {"w": NORMED(dim=0)}
    refused(
        lambda: nb.ParameterBuffer.from_arrays(arrays, attrs), ParameterError, ["'w'", "slice 1", "axis 0"]
    )


BAD_DIMS = [((), 0), ((3,), 1), ((2, 3), 2), ((2, 3, 4), 7)]


@pytest.mark.parametrize(("shape", "dim"), BAD_DIMS, ids=[f"{s} {d}" for s, d in BAD_DIMS])
def test_a_dim_beyond_the_rank_shows_what_dim_means(shape, dim):
    words = ["'w'", str(shape), f"dim={dim}", *TABLE]
    refused(lambda: create(shape, dim), ParameterError, words)
    refused(
        lambda: nb.ParameterBuffer.from_arrays({"w": np.ones(shape)}, {"w": NORMED(dim=dim)}),
        ParameterError,
        words,
    )


# --- values ----------------------------------------------------------------------------------------


@sealing
@dtypes
@case
def test_setting_w_sets_v_to_it_and_g_to_its_norm(shape, dim, dtype, sealed):
    _, w = create(shape, dim, dtype, sealed)
    given = (3 * draw(shape, 1)).astype(dtype)
    w.set_value(given)
    assert_array_equal(w.weight_v.numpy(), given)
    assert_allclose(w.weight_g.numpy(), length(given, dim), rtol=ROUNDING[dtype])
    assert_allclose(w.numpy(), given, rtol=ROUNDING[dtype])
    w.value = 2 * given
    assert_array_equal(w.weight_v.numpy(), 2 * given)


@sealing
@dtypes
@case
def test_setting_v_or_g_recomposes_w_at_once(shape, dim, dtype, sealed):
    _, w = create(shape, dim, dtype, sealed)
    g, v = w.weight_g.numpy(), draw(shape, 1).astype(dtype)
    w.weight_v.set_value(v)
    assert_array_equal(w.weight_v.numpy(), v)
    assert_array_equal(w.weight_g.numpy(), g)
    assert_allclose(w.numpy(), composed(v, g, dim), rtol=ROUNDING[dtype])
    g = draw(g.shape, 2).astype(dtype)  # of any sign
    w.weight_g.value = g
    assert_array_equal(w.weight_v.numpy(), v)
    assert_array_equal(w.weight_g.numpy(), g)
    assert_allclose(w.numpy(), composed(v, g, dim), rtol=ROUNDING[dtype])


@dtypes
@case
def test_recompose_after_writing_the_flat_array(shape, dim, dtype):
    params, w = create(shape, dim, dtype)
    views = w.value, w.weight_v.value, w.weight_g.value
    params.trainable_flat[:] = draw(params.trainable_flat.shape, 1)
    params.recompose()
    assert_allclose(views[0], composed(views[1], views[2], dim), rtol=ROUNDING[dtype])
    assert_array_equal(w.numpy(), views[0])


def test_views_follow_and_are_read_only():
    _, w = create((3, 4), 0)
    for p in (w, w.weight_v, w.weight_g):
        view = p.value
        p.set_value(2 * p.numpy())
        assert_array_equal(view, p.numpy())
        assert p.value is view
        with pytest.raises(ValueError, match="read-only"):
            view[...] = 0.0
        with pytest.raises(ValueError, match="read-only"):
            p.value += 1.0


@sealing
def test_w_takes_values_that_overlap_it(sealed):
    _, w = create((4, 4), 1, sealed=sealed)
    before = w.numpy()
    w.set_value(w.weight_v.numpy() if not sealed else w.value[::-1].T)
    assert_allclose(w.numpy(), before[::-1].T if sealed else before, rtol=1e-6)
    before = w.weight_v.numpy()
    w.value = w.weight_v.value[:, ::-1]
    assert_array_equal(w.weight_v.numpy(), before[:, ::-1])


BAD_VALUES = {
    "shape of w": ("w", np.ones((4, 3)), ParameterError, ["'w'", "(4, 3)", "(3, 4)"]),
    "shape of v": ("w_v", np.ones(12), ParameterError, ["'w_v'", "(12,)", "(3, 4)"]),
    "shape of g": ("w_g", np.ones(3), ParameterError, ["'w_g'", "(3,)", "(3, 1)"]),
    "complex w": ("w", np.ones((3, 4), complex), TypeError, ["'w'", "complex"]),
    "overflow of v": ("w_v", np.full((3, 4), 1e39), ParameterError, ["'w_v'", "(0, 0)", "float32"]),
    "zero row of w": ("w", np.eye(3, 4) * [1, 0, 1, 1], ParameterError, ["'w'", "slice 1", "axis 0"]),
    "norm of w overflows": ("w", np.full((3, 4), 3e38), ParameterError, ["'w'", "norm", "float32"]),
}


@sealing
@pytest.mark.parametrize(("name", "value", "error", "words"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_values_that_do_not_fit_change_nothing(name, value, error, words, sealed):
    params, _ = create((3, 4), 0, sealed=sealed)
    before = params.fingerprint()
    refused(lambda: params[name].set_value(value), error, words)
    assert params.fingerprint() == before


@dtypes
def test_a_zero_slice_set_later_gives_zeros(dtype):
    _, w = create((2, 3), 0, dtype, sealed=True)
    g = w.weight_g.numpy()
    w.weight_v.set_value([[0.0, 0.0, 0.0], [3.0, 0.0, 4.0]])
    w.grad = np.ones((2, 3))
    assert_array_equal(w.value[0], np.zeros(3))
    assert_array_equal(w.weight_g.value, g)
    assert_array_equal(w.weight_v.grad[0], np.zeros(3))
    assert_allclose(w.weight_g.grad, [[0.0], [7 / 5]], rtol=ROUNDING[dtype])


SCALES = [("float32", 1e-44), ("float32", 1e-30), ("float32", 1e37)]
SCALES += [("float64", s) for s in (1e-310, 1e-200, 1e-160, 1e160, 1e200, 1e300)]


@pytest.mark.parametrize(("dtype", "scale"), SCALES, ids=[f"{d} {s}" for d, s in SCALES])
@pytest.mark.parametrize("dim", [None, 0, 1])
def test_squares_neither_overflow_nor_underflow(dim, dtype, scale):
    _, w = create((2, 2), dim, dtype)
    value = (np.array([[3.0, 4.0], [-4.0, 3.0]]) * scale).astype(dtype)
    smallest = float(np.finfo(dtype).smallest_subnormal)
    w.set_value(value)
    assert_allclose(w.numpy(), value, rtol=1e-6, atol=smallest)
    w.grad = d = np.array([[1.0, 2.0], [3.0, -1.0]])
    unit = np.float64(value) / scale
    (dv, dg), _ = backward(unit, length(unit, dim), d, dim)  # v and g scale together
    tolerance = 1e-5 + smallest / scale  # g itself may be subnormal
    assert_allclose(w.weight_v.grad, dv, rtol=tolerance, atol=tolerance)
    assert_allclose(w.weight_g.grad, dg, rtol=tolerance, atol=tolerance)


def test_a_norm_beyond_float64_is_refused():
    _, w = create((2,), None, "float64")
    refused(lambda: w.set_value([1.5e308, 1.5e308]), ParameterError, ["'w'", "norm", "float64"])


# --- gradients -------------------------------------------------------------------------------------


@dtypes
@case
def test_gradients_of_g_and_v_against_their_formulas(shape, dim, dtype):
    _, w = create(shape, dim, dtype)
    v, g, d = (draw(s, seed).astype(dtype) for seed, s in enumerate((shape, w.weight_g.shape, shape), 1))
    w.weight_v.set_value(v)
    w.weight_g.set_value(g)
    w.grad = d
    expected, large = backward(v, g, d, dim)  # an error is relative to the terms that cancel
    for part, grad, terms in zip((w.weight_v, w.weight_g), expected, large, strict=True):
        assert part.grad.shape == part.shape
        assert np.all(np.abs(part.grad - grad) <= ROUNDING[dtype] * terms)
    assert_array_equal(w.grad, d)


@pytest.mark.parametrize("dim", [None, 0, 1])
def test_gradients_agree_with_finite_differences(dim):
    _, w = create((3, 4), dim, "float64")
    target = draw((3, 4), 1)
    w.grad = w.value - target  # of |w - target|^2 / 2

    def loss():
        return 0.5 * np.sum((w.numpy() - target) ** 2)

    for part in (w.weight_v, w.weight_g):
        start, grad, step = part.numpy(), part.grad, 1e-5
        for index in np.ndindex(part.shape):
            ends = []
            for sign in (1, -1):
                moved = start.copy()
                moved[index] += sign * step
                part.set_value(moved)
                ends.append(loss())
            part.set_value(start)
            assert math.isclose((ends[0] - ends[1]) / (2 * step), grad[index], rel_tol=1e-6, abs_tol=1e-8)


@pytest.mark.parametrize("name", ["weight_g", "weight_v"])
def test_gradients_of_g_and_v_are_computed_when_read(name):
    _, w = create((3, 4), 1)
    part = getattr(w, name)
    w.grad = np.ones((3, 4))
    first = part.grad
    w.grad *= 2  # in place: nothing else is to be told
    assert_allclose(part.grad, 2 * first, rtol=1e-6)
    with pytest.raises(ValueError, match="read-only"):
        part.grad[...] = 0.0
    words = [f"'w_{name[-1]}'", "'w'", "computed"]
    refused(lambda: setattr(part, "grad", np.ones(part.shape)), ParameterError, words)


@pytest.mark.parametrize("name", ["w", "w_g", "w_v"])
@pytest.mark.parametrize("keep", [True, False], ids=["zeros", "absent"])
def test_clearing_clears_what_is_written(name, keep):
    params, w = create((3, 4), 1)
    w.grad = np.ones((3, 4))
    params[name].clear_grad(set_to_zero=keep)
    for p in (w, w.weight_g, w.weight_v):
        assert_array_equal(p.grad, np.zeros(p.shape))
        assert p.has_grad is keep
    w.grad = np.ones((3, 4))
    assert all(p.has_grad for p in (w, w.weight_g, w.weight_v))


@dtypes
def test_a_step_moves_g_and_v_and_recomposes(dtype):
    params, w = create((3, 4), 0, dtype)
    view, v, g = w.value, w.weight_v.numpy(), w.weight_g.numpy()
    w.grad = draw((3, 4), 1)
    dv, dg = w.weight_v.grad, w.weight_g.grad
    nb.optimizer.Momentum(0.1, parameters=params).step()
    assert_allclose(w.weight_v.value, v - 0.1 * dv, rtol=1e-6)
    assert_allclose(w.weight_g.value, g - 0.1 * dg, rtol=1e-6)
    assert_allclose(view, composed(w.weight_v.value, w.weight_g.value, 0), rtol=ROUNDING[dtype])
    stepped = view.copy()
    params.recompose()  # the same kernel, the same bits
    assert_array_equal(view, stepped)
