"""The clips on plain arrays: their laws in exact arithmetic, edges and errors.

Ids such as N09 and V05 are rows of a table of hostile inputs, collected from other libraries.
"""

import math

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nbopt as nb
from nbopt.errors import HyperparameterError, ParameterError
from tests.kernels import bits, draw, exact_square, exact_squares

DTYPES = ["float32", "float64"]
NORM_CLIPS = [nb.ClipGradByNorm, nb.ClipGradByGlobalNorm]
CLIPS = [*NORM_CLIPS, nb.ClipGradByValue]
NAN, INF = math.nan, math.inf
DRAWS = 300  # per dtype and clip: 1,200 sets of arrays in all

by_name = pytest.mark.parametrize("make", NORM_CLIPS, ids=lambda c: c.__name__)
by_dtype = pytest.mark.parametrize("dtype", DTYPES)


def same(found, expected):
    assert list(found) == list(expected)
    assert {n: bits(a) for n, a in found.items()} == {n: bits(a) for n, a in expected.items()}


def limited_sets(make, grads):
    """The sets of names whose common norm a clip limits."""
    return [list(grads)] if make is nb.ClipGradByGlobalNorm else [[name] for name in grads]


# --- the laws of a norm clip ----------------------------------------------------------------------


@by_dtype
@by_name
def test_laws(make, dtype):
    """Above the limit: never above it afterwards, and a second clip changes nothing. Below: no change."""
    rng = np.random.default_rng(DTYPES.index(dtype))
    above = 0
    for _ in range(DRAWS):
        grads = draw(rng, dtype)
        before = {name: bits(grad) for name, grad in grads.items()}
        total = nb.norm(np.concatenate([g.ravel() for g in grads.values()]))
        limit = total * float(np.exp2(rng.uniform(-30, 3)))
        clip = make(limit)
        clipped = clip(grads)
        assert {name: bits(grad) for name, grad in grads.items()} == before
        assert list(clipped) == list(grads)
        for names in limited_sets(make, grads):
            inside, outside = [grads[n] for n in names], [clipped[n] for n in names]
            if exact_squares(inside) <= exact_square(limit):
                assert [bits(a) for a in outside] == [bits(a) for a in inside]
            else:
                above += 1
                assert (1 - 2**-20) * limit <= nb.norm(np.concatenate([a.ravel() for a in outside])) <= limit
                assert exact_squares(outside) <= exact_square(limit)
        same(clip(clipped), clipped)
    assert above >= DRAWS / 2


@by_dtype
@by_name
def test_direction_is_kept(make, dtype):
    """Every element is multiplied by one factor, limit * shrink / norm, to two roundings."""
    grads = draw(np.random.default_rng(5), dtype)
    shrink = 1 - (2.0**-22 if dtype == "float32" else 2.0**-44)
    for names in limited_sets(make, grads):
        norm = nb.norm(np.concatenate([grads[n].ravel() for n in names]))
        clipped = make(norm / 1000)({n: grads[n] for n in names})
        for n in names:
            expected = grads[n].astype(np.float64) * (shrink / 1000)
            np.testing.assert_allclose(clipped[n], expected, rtol=2 * float(np.finfo(dtype).eps), atol=0)


@by_dtype
@by_name
def test_exactly_at_the_limit_nothing_changes(make, dtype):  # N19
    same(make(5.0)({"w": np.array([3, -4, 0, -0.0], dtype)}), {"w": np.array([3, -4, 0, -0.0], dtype)})
    rng = np.random.default_rng(1)
    for _ in range(50):
        grads = {"w": rng.standard_normal(rng.integers(1, 9000)).astype(dtype)}
        same(make(nb.norm(grads["w"]))(grads), grads)


@by_dtype
@by_name
def test_limit_zero_gives_zeros(make, dtype):  # N11, N10n, N12, N12n
    for values in ([3, -4], [0, 0], [1e30, -1e-30], [], 7.0):
        clipped = make(0.0)({"w": np.array(values, dtype)})["w"]
        assert clipped.dtype == dtype
        assert_array_equal(clipped, np.zeros_like(np.array(values, dtype)))


@by_dtype
@by_name
@pytest.mark.parametrize(
    "values", [[3, 4], [1e30, 1e30], [3e38] * 4, [NAN, 1], [INF, 1], [INF, NAN], []], ids=str
)
def test_limit_infinity_changes_nothing(make, dtype, values):  # N13, N13b
    grads = {"w": np.array(values, dtype), "x": np.array([2.0], dtype)}
    same(make(INF)(grads), grads)


@by_dtype
@by_name
def test_norm_zero_is_left_alone(make, dtype):  # N10
    grads = {"a": np.array([0.0, -0.0], dtype), "b": np.zeros((0, 3), dtype)}
    same(make(1.0)(grads), grads)
    assert make(1.0)({}) == {}


@pytest.mark.parametrize("make", NORM_CLIPS, ids=lambda c: c.__name__)
@pytest.mark.parametrize(
    ("dtype", "values", "limit", "expected"),
    [
        pytest.param("float32", [1e30] * 2, 1.0, 0.5**0.5, id="N01"),
        pytest.param("float32", [1e-30] * 4, 1e-31, 5e-32, id="N02"),
        pytest.param("float64", [1e200] * 2, 1.0, 0.5**0.5, id="N03"),
        pytest.param("float64", [1e-200] * 4, 1e-201, 5e-202, id="N04"),
        pytest.param("float32", [1e-45] * 4, 1.0, 2.0**-149, id="N05"),
        pytest.param("float64", [5e-324] * 4, 1.0, 5e-324, id="N5d"),
        pytest.param("float32", [3.4e38] * 4, 1.0, 0.5, id="N16"),
        pytest.param("float64", [1.7e308] * 4, 1.0, 0.5, id="N16d"),
        pytest.param("float64", [1.7e308] * 4, 1e308, 5e307, id="N16d-large-limit"),
        pytest.param("float32", [3e-8], 1e-8, 1e-8, id="N18"),
        pytest.param("float32", [3e38] * 4, 1e-5, 5e-6, id="coefficient-subnormal-in-float32"),
        pytest.param("float64", [1e120] * 4, 2.57e-203, 1.285e-203, id="coefficient-subnormal-in-float64"),
        pytest.param("float64", [1e300] * 4, 1e-300, 5e-301, id="coefficient-below-float64"),
    ],
)
def test_range(make, dtype, values, limit, expected):
    grads = {"w": np.array(values, dtype)}
    clipped = make(limit)(grads)["w"]
    np.testing.assert_allclose(clipped, np.full(len(values), expected), rtol=1e-6, atol=0)
    assert exact_squares([clipped]) <= exact_square(limit)


def test_float64_keeps_small_elements_beside_huge_ones():
    clipped = nb.ClipGradByNorm(1e199)({"w": [1e200, 1e-140]})["w"]
    np.testing.assert_allclose(clipped, [1e199, 1e-141], rtol=1e-13)


@by_name
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([NAN, 1.0], [NAN, NAN], id="N08"),
        pytest.param([INF, 1.0], [NAN, 0.0], id="N09"),
        pytest.param([INF, NAN], [NAN, NAN], id="N09c"),
    ],
)
def test_nonfinite_values_propagate(make, values, expected):
    assert_array_equal(make(1.0)({"w": values})["w"], expected)


# --- by value -------------------------------------------------------------------------------------


@by_dtype
@pytest.mark.parametrize(
    ("bounds", "values", "expected"),
    [
        pytest.param((1,), [-3, 0.5, NAN, INF, -INF], [-1, 0.5, NAN, 1, -1], id="V05"),
        pytest.param((0,), [-3, 0.5, NAN, 0], [0, 0, NAN, 0], id="V06"),
        pytest.param((2, -1), [-3, 0.5, 3], [-1, 0.5, 2], id="unequal"),
        pytest.param((-1, -2), [-3, -1.5, 3], [-2, -1.5, -1], id="below-zero"),
        pytest.param((3, 3), [-3, 5], [3, 3], id="one-point"),
        pytest.param((INF,), [-3, INF, NAN], [-3, INF, NAN], id="infinite"),
        pytest.param((INF, 0), [-3, INF, 7], [0, INF, 7], id="half-infinite"),
        pytest.param((1e300,), [-3, 3e38], [-3, 3e38], id="V08"),
        pytest.param((1,), 5.0, 1.0, id="0-d"),
        pytest.param((1,), [], [], id="empty"),
    ],
)
def test_by_value(bounds, values, expected, dtype):
    grads = {"w": np.array(values, dtype)}
    clipped = nb.ClipGradByValue(*bounds)(grads)["w"]
    assert type(clipped) is np.ndarray
    assert clipped.dtype == dtype
    assert_array_equal(clipped, np.array(expected, dtype))
    same(nb.ClipGradByValue(*bounds)({"w": clipped}), {"w": clipped})


# --- need_clip, names, dtypes, new arrays ---------------------------------------------------------


@by_dtype
@pytest.mark.parametrize("make", CLIPS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("limit", [0.5, 1e9], ids=["above", "below"])
def test_new_arrays_of_the_same_names_shapes_and_dtypes(make, limit, dtype):
    grads = {
        "z": np.array(2.0, dtype),
        "a": np.asfortranarray(np.ones((3, 4), dtype)),
        "m": np.ones((2, 0), dtype),
        "s": np.arange(20, dtype=dtype)[::2],
        "r": np.ones(3, dtype),
    }
    grads["r"].flags.writeable = False
    before = {n: bits(g) for n, g in grads.items()}
    for need in (None, dict.fromkeys(grads, False)):
        clipped = make(limit)(grads, need)
        assert list(clipped) == list(grads)
        for name, grad in grads.items():
            assert type(clipped[name]) is np.ndarray
            assert (clipped[name].shape, clipped[name].dtype) == (grad.shape, grad.dtype)
            assert clipped[name].flags.writeable
            assert not np.shares_memory(clipped[name], grad)
            assert bits(grad) == before[name]


def test_need_clip_leaves_an_array_alone_and_out_of_the_norm():
    grads = {"a": [3.0, 0.0], "b": [1e9], "c": [0.0, 4.0]}
    same(nb.ClipGradByGlobalNorm(5.0)(grads, {"b": False}), {n: np.array(g) for n, g in grads.items()})
    clipped = nb.ClipGradByGlobalNorm(1.0)(grads, {"b": False, "a": True})
    assert clipped["b"] == [1e9]
    np.testing.assert_allclose([*clipped["a"], *clipped["c"]], [0.6, 0, 0, 0.8], rtol=1e-12)
    assert nb.ClipGradByValue(1.0)(grads, {"b": False})["b"] == [1e9]
    assert_array_equal(nb.ClipGradByNorm(1.0)({"b": [NAN, 2.0]}, {"b": False})["b"], [NAN, 2.0])


def test_the_order_of_names_changes_no_bit():
    rng = np.random.default_rng(2)
    grads = {f"p{i}": rng.standard_normal(int(rng.integers(1, 500))) * 10.0**i for i in range(9)}
    clipped = nb.ClipGradByGlobalNorm(1.0)(grads)
    for _ in range(20):
        names = [str(n) for n in rng.permutation(list(grads))]
        again = nb.ClipGradByGlobalNorm(1.0)({n: grads[n] for n in names})
        same(again, {n: clipped[n] for n in names})


def test_mixed_dtypes_share_one_norm_and_keep_their_own():
    grads = {"a": np.float32([3, 0]), "b": np.float64([0, 4])}
    clipped = nb.ClipGradByGlobalNorm(1.0)(grads)
    assert [a.dtype for a in clipped.values()] == [np.float32, np.float64]
    np.testing.assert_allclose(np.concatenate(list(clipped.values())), [0.6, 0, 0, 0.8], rtol=3e-7)
    assert exact_squares(clipped.values()) <= exact_square(1.0)


@pytest.mark.parametrize(
    ("grads", "expected"),
    [
        pytest.param({"a": np.float16([300] * 4), "b": np.float16([60000])}, 60003.0, id="N06"),
        pytest.param({"a": np.float16([60000]), "b": np.float16([60000])}, 84852.8, id="N06b"),
        pytest.param({"a": np.float16([3, 0]), "b": np.float64([0, 4])}, 5.0, id="N26"),
        pytest.param({"a": [3, 0], "b": np.array([0, 4], ">f4")}, 5.0, id="int-and-big-endian"),
    ],
)
def test_other_real_types_are_taken_as_float64(grads, expected):
    clipped = nb.ClipGradByGlobalNorm(1.0)(grads)
    joined = np.concatenate([np.asarray(g, np.float64) for g in grads.values()])
    np.testing.assert_allclose(np.concatenate(list(clipped.values())), joined / expected, rtol=1e-6)
    assert {a.dtype for a in clipped.values()} == {np.dtype(np.float64)}


# --- errors of the clips --------------------------------------------------------------------------


@pytest.mark.parametrize("make", CLIPS, ids=lambda c: c.__name__)
@pytest.mark.parametrize(
    ("limit", "error"),
    [
        *((-1.0, HyperparameterError), (NAN, HyperparameterError), (-INF, HyperparameterError)),
        *(("1.0", TypeError), (None, TypeError), (True, TypeError), (1j, TypeError)),
        *(([1.0, 2.0], TypeError), (np.ones(2), TypeError)),
    ],
    ids=repr,
)
def test_bad_limits_are_refused_at_construction(make, limit, error):  # N14, N15, N14c, N23, V03, V04
    with pytest.raises(error, match=make.__name__):
        make(limit)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        pytest.param({"max": -2, "min": 2}, HyperparameterError, id="V01"),
        pytest.param({"max": 1, "min": NAN}, HyperparameterError, id="V02"),
        pytest.param({"max": 1, "min": "0"}, TypeError, id="string"),
    ],
)
def test_bad_bounds_are_refused(arguments, error):
    with pytest.raises(error, match="ClipGradByValue"):
        nb.ClipGradByValue(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"group_name": ""}, ParameterError),
        ({"group_name": 3}, TypeError),
        ({"auto_skip_clip": 1}, TypeError),
    ],
    ids=str,
)
def test_bad_options_are_refused(arguments, error):
    with pytest.raises(error, match=next(iter(arguments))):
        nb.ClipGradByGlobalNorm(1.0, **arguments)


@pytest.mark.parametrize("make", CLIPS, ids=lambda c: c.__name__)
@pytest.mark.parametrize(
    ("grads", "need", "error", "words"),
    [
        pytest.param({"w": [1j]}, None, TypeError, "'w'.*complex128", id="N27"),
        pytest.param({"w": [True]}, None, TypeError, "'w'.*bool", id="bool"),
        pytest.param({"w": None}, None, TypeError, "'w'.*object", id="None"),
        pytest.param({3: [1.0]}, None, TypeError, "name", id="name"),
        pytest.param([1.0], None, TypeError, "", id="list"),
        pytest.param({"w": [1.0]}, {"v": True}, ParameterError, "'v'.*legal keys: w", id="unknown"),
        pytest.param({"w": [1.0]}, {"w": 1}, TypeError, "need_clip of 'w'", id="flag"),
    ],
)
def test_bad_gradients_are_refused(make, grads, need, error, words):
    with pytest.raises(error, match=words or None):
        make(1.0)(grads, need)
