"""nb.weight_norm and nb.weight_norm_backward: formulas, bits, forms of input, edges and errors."""

import importlib
import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nbopt as nb
from nbopt.errors import ParameterError
from tests.kernels import bits

ROUNDING = {"float32": 4 * np.finfo(np.float32).eps, "float64": 8 * np.finfo(np.float64).eps}
SHAPES = [(1,), (5,), (3, 4), (7, 1), (1, 6), (2, 3, 4), (3, 2, 2, 3)]
# The last ones are longer than a block of rows (256), of elements (4096), and a tile (512).
CASES = [(shape, dim) for shape in SHAPES for dim in (None, *range(len(shape)))]
CASES += [((600, 5), 1), ((3, 5000), 0), ((70, 90), None), ((300, 2, 300), 1)]
case = pytest.mark.parametrize(("shape", "dim"), CASES, ids=[f"{s} {d}" for s, d in CASES])
dtypes = pytest.mark.parametrize("dtype", ROUNDING)


def kept(shape, dim):
    """The shape of g that keeps the rank."""
    return tuple(n if axis == dim else 1 for axis, n in enumerate(shape))


def draw(shape, dim, dtype="float64", seed=0):
    """v, g of any sign, and dL/dw."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(s).astype(dtype) for s in (shape, kept(shape, dim), shape)]


def reference(v, g, d, dim):
    """w, dv, dg, and how large the terms of each are; slice by slice, in extended precision."""
    size = 1 if dim is None else v.shape[dim]
    v, d = (np.moveaxis(np.longdouble(a), dim or 0, 0).reshape(size, -1) for a in (v, d))
    g = np.longdouble(g).reshape(size, 1)
    norm = np.sqrt((v * v).sum(axis=1, keepdims=True))
    unit = v / norm
    dg = (unit * d).sum(axis=1, keepdims=True)
    terms = abs(unit * d).sum(axis=1, keepdims=True)
    values = g * unit, g / norm * (d - dg * unit), dg
    return values, (abs(g * unit), abs(g / norm) * (abs(d) + terms * abs(unit)), terms)


def sliced(array, shape, dim):
    """An array of the shape of v, or of g, with its slices for rows."""
    if array.shape != shape:
        return array.reshape(-1, 1)
    return np.moveaxis(array, dim or 0, 0).reshape(1 if dim is None else shape[dim], -1)


# --- values ----------------------------------------------------------------------------------------


@dtypes
@case
def test_formulas(shape, dim, dtype):
    v, g, d = draw(shape, dim, dtype)
    got = nb.weight_norm(v, g, dim), *nb.weight_norm_backward(v, g, d, dim)
    assert [a.shape for a in got] == [shape, shape, g.shape]
    assert {a.dtype.name for a in got} == {dtype}
    for array, value, terms in zip(got, *reference(v, g, d, dim), strict=True):
        rows = sliced(array, shape, dim) if array is not got[2] else array.reshape(-1, 1)
        assert np.all(np.abs(rows - value) <= ROUNDING[dtype] * terms)


@dtypes
@case
def test_bits_are_those_of_a_parameter(shape, dim, dtype):
    v, g, d = draw(shape, dim, dtype, seed=1)
    params = nb.ParameterBuffer(dtype)
    w = params.create_parameter(shape, "w", nb.WeightNormParamAttr(dim, initializer=nb.initializer.Assign(v)))
    w.weight_g.set_value(g)
    w.grad = d
    assert bits(nb.weight_norm(v, g, dim)) == bits(w.value)
    dv, dg = nb.weight_norm_backward(v, g, d, dim)
    assert (bits(dv), bits(dg)) == (bits(w.weight_v.grad), bits(w.weight_g.grad))


@pytest.mark.parametrize(("shape", "dim"), [((3, 4), 0), ((3, 4), 1), ((3, 4), None), ((2, 3, 2), 1)])
def test_gradients_agree_with_finite_differences(shape, dim):
    v, g, target = draw(shape, dim)

    def loss():
        return 0.5 * math.fsum(np.ravel(nb.weight_norm(v, g, dim) - target) ** 2)

    grads = nb.weight_norm_backward(v, g, nb.weight_norm(v, g, dim) - target, dim)
    for array, grad in zip((v, g), grads, strict=True):
        for index in np.ndindex(array.shape):
            start, ends = array[index], []
            for step in (1e-5, -1e-5):
                array[index] = start + step
                ends.append(loss())
            array[index] = start
            assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(grad[index], rel=1e-6, abs=1e-8)


@dtypes
@case
def test_laws(shape, dim, dtype):
    """w depends on the direction of v alone, and has the sign and the length of g."""
    v, g, _ = draw(shape, dim, dtype)
    w = nb.weight_norm(v, g, dim)
    assert bits(nb.weight_norm(v * 2**10, g, dim)) == bits(w)
    assert bits(nb.weight_norm(v, -g, dim)) == bits(-w)
    norms = np.atleast_1d(nb.norm(w, dim))
    assert_allclose(norms, np.abs(g).ravel(), rtol=ROUNDING[dtype])


# --- forms of input --------------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize(("shape", "dim"), [((4, 3), 0), ((4, 3), 1), ((2, 3, 5), 1), ((7,), 0)])
def test_g_is_a_vector_or_keeps_the_rank(shape, dim, dtype):
    v, g, d = draw(shape, dim, dtype)
    expected = nb.weight_norm(v, g, dim), *nb.weight_norm_backward(v, g, d, dim)
    vector = g.reshape(-1)
    w, (dv, dg) = nb.weight_norm(v, vector, dim), nb.weight_norm_backward(v, vector, d, dim)
    assert dg.shape == vector.shape
    assert (bits(w), bits(dv), bits(dg)) == (*map(bits, expected[:2]), bits(expected[2].reshape(-1)))


@dtypes
@pytest.mark.parametrize("g", [2.5, np.array(2.5), [2.5], [[2.5]]], ids=["number", "0-d", "(1,)", "(1, 1)"])
def test_g_of_the_whole_is_a_number_in_any_form(g, dtype):
    v, _, d = draw((3, 4), None, dtype)
    given = g if isinstance(g, float) else np.asarray(g, dtype)
    expected = nb.weight_norm_backward(v, np.full((1, 1), 2.5, dtype), d, None)
    dv, dg = nb.weight_norm_backward(v, given, d, None)
    assert (dg.shape, dg.dtype) == (np.shape(g), dtype)
    assert (bits(dv), dg.item()) == (bits(expected[0]), expected[1].item())
    assert bits(nb.weight_norm(v, given, None)) == bits(nb.weight_norm(v, np.full(1, 2.5, dtype), None))


def _read_only(array):
    array.flags.writeable = False
    return array


FORMS = {
    "Fortran": np.asfortranarray,
    "strided": lambda a: a[::2, ::-1, 1:],
    "transposed": lambda a: a.transpose(2, 0, 1),
    "broadcast": lambda a: np.broadcast_to(a[:1], a.shape),
    "unaligned": lambda a: np.frombuffer(b"\0" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
    "read-only": lambda a: _read_only(a.copy()),
    "list": lambda a: a.tolist(),
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("which", ["v", "dw"])
def test_the_form_changes_no_bit(form, which):
    arrays = (
        np.random.default_rng(1).standard_normal((6, 5, 7)),
        np.random.default_rng(2).standard_normal((6, 5, 7)),
    )
    formed = form(arrays[0])
    plain = np.array(formed, dtype=np.float64, order="C")
    other = np.resize(arrays[1], plain.shape)
    for dim in (None, *range(3)):
        g = np.random.default_rng(3).standard_normal(kept(plain.shape, dim))
        v, d = (formed, other) if which == "v" else (other, formed)
        v0, d0 = (plain, other) if which == "v" else (other, plain)
        assert bits(nb.weight_norm(v, g, dim)) == bits(nb.weight_norm(v0, g, dim))
        got, expected = nb.weight_norm_backward(v, g, d, dim), nb.weight_norm_backward(v0, g, d0, dim)
        assert [bits(a) for a in got] == [bits(a) for a in expected]


def test_results_are_new_and_input_is_not_changed():
    arrays = draw((3, 4), 0)
    before = [bits(a) for a in arrays]
    v, g, d = arrays
    results = nb.weight_norm(v, g, 0), *nb.weight_norm_backward(v, g, d, 0)
    assert [bits(a) for a in arrays] == before
    for result, array in itertools.product(results, arrays):
        assert result.flags.writeable
        assert not np.shares_memory(result, array)


@pytest.mark.parametrize(
    ("v", "g", "dtype"),
    [
        (np.float32, np.float32, "float32"),
        (np.float32, np.float64, "float64"),
        (np.float64, np.float32, "float64"),
        (np.float16, np.float16, "float64"),
        (np.int8, np.float32, "float64"),
        (np.uint64, np.int32, "float64"),
        (np.float32, float, "float32"),
        (np.float64, int, "float64"),
        (list, float, "float64"),
    ],
)
def test_dtypes(v, g, dtype):
    v = np.array([[3, 4]]).tolist() if v is list else np.array([[3, 4]], v)
    g = g(10) if g in (int, float) else np.array([10], g)
    w, (dv, dg) = nb.weight_norm(v, g, None), nb.weight_norm_backward(v, g, np.array(v), None)
    assert {a.dtype.name for a in (w, dg)} == {dtype}
    assert_allclose(w, [[6, 8]], rtol=1e-6)
    assert_allclose(dv, [[0, 0]], atol=1e-6)
    assert_allclose(dg, np.full(np.shape(g), 5.0))


# --- edges -----------------------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("g", [0.0, 1.0, -2.0])
def test_a_zero_slice_gives_zeros(g, dtype):  # W01, W01b, W02
    v = np.array([[0.0, -0.0], [3.0, 4.0]], dtype)
    w = nb.weight_norm(v, np.array([g, 1.0], dtype), 0)
    assert_array_equal(w[0], [0.0, 0.0])
    assert_allclose(w[1], [0.6, 0.8], rtol=1e-6)
    dv, dg = nb.weight_norm_backward(v, np.array([g, 1.0], dtype), np.ones((2, 2), dtype), 0)
    assert_array_equal(dv[0], [0.0, 0.0])
    assert_allclose(dv[1], [0.032, -0.024], rtol=1e-5)
    assert_allclose(dg, [0.0, 1.4], rtol=1e-6)
    assert_array_equal(nb.weight_norm(np.zeros((2, 2), dtype), 1.0, None), np.zeros((2, 2)))


SCALES = [("float32", s) for s in (1e-44, 3e-30, 1e37)]
SCALES += [("float64", s) for s in (1e-310, 1e-200, 1e-160, 1e160, 1e200, 3e307)]


@pytest.mark.parametrize(("dtype", "scale"), SCALES, ids=[f"{d} {s}" for d, s in SCALES])
@pytest.mark.parametrize("dim", [None, 0, 1])
def test_squares_neither_overflow_nor_underflow(dim, dtype, scale):  # W03, W04, W04d
    v = (np.array([[3.0, 4.0], [-4.0, 3.0]]) * scale).astype(dtype)
    expected = np.float64(v) / scale
    expected /= np.sqrt(np.sum(expected**2, axis=None if dim is None else 1 - dim, keepdims=True))
    g = np.ones(kept((2, 2), dim), dtype)
    tolerance = 1e-6 + np.finfo(dtype).smallest_subnormal / scale
    assert_allclose(nb.weight_norm(v, g, dim), expected, rtol=tolerance)
    d = np.array([[1.0, 2.0], [3.0, -1.0]])
    _, dg = nb.weight_norm_backward(v, g, d, dim)
    axis = None if dim is None else 1 - dim
    assert_allclose(dg, np.sum(expected * d, axis=axis, keepdims=True), rtol=tolerance)


@dtypes
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_bad_elements_stay_in_their_slice(bad, dtype):  # W13, W14
    v, g, d = draw((3, 4), 0, dtype)
    expected = nb.weight_norm(v, g, 0), *nb.weight_norm_backward(v, g, d, 0)
    for array in (v, d):
        start, array[1, 2] = array[1, 2], bad
        got = nb.weight_norm(v, g, 0), *nb.weight_norm_backward(v, g, d, 0)
        array[1, 2] = start
        for a, b in zip(got, expected, strict=True):
            assert bits(a[[0, 2]]) == bits(b[[0, 2]])
        assert not np.isfinite(got[1][1]).all()


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 2)], ids=str)
def test_empty(shape):  # W07, W07b
    for dim in (None, *range(len(shape))):
        v, g, d = draw(shape, dim, "float32")
        assert nb.weight_norm(v, g, dim).shape == shape
        dv, dg = nb.weight_norm_backward(v, g, d, dim)
        assert dv.shape == shape
        assert_array_equal(dg, np.zeros_like(g))


def test_threads_read_the_same_bits():
    v, g, d = draw((300, 40), 1, "float32")
    expected = bits(nb.weight_norm(v, g, 1)), *map(bits, nb.weight_norm_backward(v, g, d, 1))

    def run(_):
        return bits(nb.weight_norm(v, g, 1)), *map(bits, nb.weight_norm_backward(v, g, d, 1))

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(run, range(64))) == {expected}


def test_importing_the_module_does_not_hide_the_function():
    importlib.import_module("nbopt.weightnorm")
    assert callable(nb.weight_norm)
    assert callable(nb.weight_norm_backward)


# --- errors ----------------------------------------------------------------------------------------

V = [[3.0, 4.0], [1.0, 2.0]]
MEANINGS = ("kept", "reduced", "whole tensor", "last axis", "nbopt", "Paddle", "torch", "Jittor")
REFUSED = {
    "dim -1": (V, [1.0, 1.0], -1, ParameterError, ["dim=-1", *MEANINGS]),
    "dim -2": (V, [1.0, 1.0], np.int8(-2), ParameterError, ["dim=-2", *MEANINGS]),
    "dim 2": (V, [1.0, 1.0], 2, ParameterError, ["(2, 2)", "dim=2", *MEANINGS]),
    "dim of a float": (V, [1.0, 1.0], 1.0, TypeError, ["dim", "integer"]),
    "dim of a bool": (V, [1.0, 1.0], True, TypeError, ["dim", "integer"]),
    "dim of a string": (V, [1.0, 1.0], "0", TypeError, ["dim", "integer"]),
    "dim of a tuple": (V, [1.0, 1.0], (0,), TypeError, ["dim", "integer"]),
    "0-d v": (3.0, 1.0, None, ParameterError, ["v of", "axis"]),
    "0-d v and a dim": (np.float32(3.0), 1.0, 0, ParameterError, ["v of", "axis"]),
    "long g": (V, [1.0, 1.0, 1.0], 0, ParameterError, ["g of", "(2, 1) or (2,)", "(2, 2)", "(3,)"]),
    "g of the other axis": (V, [[1.0, 1.0]], 0, ParameterError, ["g of", "(2, 1) or (2,)", "(1, 2)"]),
    "g of the whole for an axis": (V, 1.0, 0, ParameterError, ["g of", "(2, 1) or (2,)", "()"]),
    "g of an axis for the whole": (V, [1.0, 1.0], None, ParameterError, ["(1, 1) or () or (1,)", "(2,)"]),
    "complex v": (np.array(V, complex), [1.0, 1.0], 0, TypeError, ["v of", "real numbers", "complex"]),
    "bool g": (V, [True, True], 0, TypeError, ["g of", "real numbers", "bool"]),
    "text": ([["a"]], [1.0], 0, TypeError, ["v of", "real numbers"]),
    "None": (V, None, None, TypeError, ["g of", "real numbers"]),
    "ragged": ([[1.0], [1.0, 2.0]], 1.0, None, ParameterError, ["v of", "no array of numbers"]),
    "g beyond float32": (np.ones(2, np.float32), 1e39, None, ParameterError, ["g of", "float32"]),
}


@pytest.mark.parametrize(("v", "g", "dim", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_refused(v, g, dim, error, words):
    for call, label in (
        (lambda: nb.weight_norm(v, g, dim), "weight_norm"),
        (lambda: nb.weight_norm_backward(v, g, v, dim), "weight_norm_backward"),
    ):
        with pytest.raises(error) as caught:
            call()
        assert caught.type is error
        assert not [word for word in (label, *words) if word not in str(caught.value)], str(caught.value)


@pytest.mark.parametrize("v", [type("Layer", (), {})(), V], ids=["object", "array"])
def test_a_name_in_place_of_g_points_to_the_functions_for_objects(v):
    kind = type(v).__name__
    with pytest.raises(TypeError, match=rf"got {kind} and 'weight'; .*nbopt\.compat\.paddle\.weight_norm"):
        nb.weight_norm(v, "weight", 0)


@pytest.mark.parametrize("dw", [[3.0, 4.0], [[1.0, 2.0, 3.0]], 1.0, np.ones((2, 2, 1))], ids=str)
def test_dw_has_the_shape_of_v(dw):
    with pytest.raises(ParameterError, match=r"dw of .* shape of v, \(2, 2\)"):
        nb.weight_norm_backward(V, [1.0, 1.0], dw, 0)
    with pytest.raises(TypeError, match=r"dw of .* real numbers"):
        nb.weight_norm_backward(V, [1.0, 1.0], np.ones((2, 2), complex), 0)
