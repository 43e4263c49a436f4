"""nb.norm against exact sums of squares, at every edge of the number range, and its errors."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nbopt as nb
from nbopt.errors import ParameterError
from tests.distributions import KINDS, normal, planted, subnormal
from tests.kernels import UNIT, bits, exact_square, exact_squares

LARGEST = float(np.finfo(np.float64).max)
SMALLEST_NORMAL = float(np.finfo(np.float64).smallest_normal)
DTYPES = ["float32", "float64"]
SIZES = [0, 1, 2, 3, 31, 127, 128, 129, 4095, 4096, 4097, 8191, 8193, 40_000, 100_000]
DRAWS = 170  # arrays per kind and dtype: 2,040 in all


def log2(n):
    return math.ceil(math.log2(max(1, n)))


def check(found, arrays, additions):
    """|found - norm| <= (additions/2 + 1) 2**-53 norm, in integers; infinite only above the range."""
    total = exact_squares(arrays)
    unit = 2**54
    margin = additions + 2
    if math.isinf(found):
        assert total * (unit + margin) ** 2 >= exact_square(LARGEST) * unit**2
        return
    if found < 2 * SMALLEST_NORMAL:  # the result itself is rounded to a multiple of 2**-1074
        half = Fraction(1, 2**1075)
        exact = total * (unit + margin) ** 2, total * (unit - margin) ** 2
        assert max(Fraction(0), Fraction(found) - half) ** 2 * UNIT * unit**2 <= exact[0]
        assert (Fraction(found) + half) ** 2 * UNIT * unit**2 >= exact[1]
        return
    square = exact_square(found) * unit**2
    assert total * (unit - margin) ** 2 <= square <= total * (unit + margin) ** 2


def sizes(rng):
    """Each edge once, then sizes drawn log-uniformly."""
    drawn = (int(n) for n in np.exp2(rng.uniform(0, 14, DRAWS - len(SIZES))))
    return itertools.chain(SIZES, drawn)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda f: f.__name__)
def test_within_the_bound(kind, dtype):
    rng = np.random.default_rng(KINDS.index(kind))
    for size in sizes(rng):
        x = kind(rng, size, dtype)
        found = nb.norm(x)
        assert type(found) is float
        check(found, [x], 39 + log2(-(-size // 4096)))


# --- along an axis --------------------------------------------------------------------------------

SHAPES = [
    *((7,), (300,), (1,), (0,)),
    *((5, 7), (700, 3), (3, 1500), (1, 6), (6, 1), (0, 3), (3, 0)),
    *((4, 5, 6), (600, 3, 2), (2, 3, 700), (1, 1, 9), (257, 4, 33)),
    *((3, 4, 5, 2), (2, 2, 2, 2), (30, 1, 9, 40)),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_axis(shape, dtype):
    rng = np.random.default_rng(len(shape))
    for dim, kind in itertools.product(range(len(shape)), KINDS):
        x = kind(rng, math.prod(shape), dtype).reshape(shape)
        found = nb.norm(x, dim)
        assert found.shape == (shape[dim],)
        assert found.dtype == np.float64
        for norm, part in zip(found, np.moveaxis(x, dim, 0), strict=True):
            check(float(norm), [part], 39 + 66 + log2(max(1, part.size)))


@pytest.mark.parametrize("dim", [None, 0])
def test_axis_of_one_slice_has_the_bits_of_the_whole(dim):
    x = normal(np.random.default_rng(0), 30_000, "float32")
    assert bits(nb.norm(x.reshape(1, 100, 300), 0)) == bits([nb.norm(x)])


# --- forms of input -------------------------------------------------------------------------------

BLOCK = np.random.default_rng(1).standard_normal((12, 10, 14))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "form",
    [
        pytest.param(np.asfortranarray, id="Fortran"),
        pytest.param(lambda a: a[::2, ::-1, 1:], id="strided"),
        pytest.param(lambda a: a.transpose(2, 0, 1), id="transposed"),
        pytest.param(lambda a: np.broadcast_to(a[:1], a.shape), id="broadcast"),
        pytest.param(lambda a: np.frombuffer(b"\0" + a.tobytes(), a.dtype, offset=1), id="unaligned"),
        pytest.param(lambda a: _read_only(a.copy()), id="read-only"),
        pytest.param(lambda a: a.astype(a.dtype.newbyteorder()), id="big-endian"),
        pytest.param(lambda a: a.tolist(), id="list"),
    ],
)
def test_the_form_changes_no_bit(form, dtype):
    x = form(BLOCK.astype(dtype))
    plain = np.array(x, dtype=dtype, order="C")
    for dim in (None, *range(plain.ndim)):
        assert bits(nb.norm(x, dim)) == bits(nb.norm(plain, dim))


def _read_only(array):
    array.flags.writeable = False
    return array


def test_the_input_is_not_changed():
    x = np.array([1e200, np.nan, -0.0, 5e-324, 1e-300])
    before = bits(x)
    nb.norm(x), nb.norm(x, 0)
    assert bits(x) == before


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64", "uint64", "float16"])
def test_other_real_types(dtype):
    assert nb.norm(np.array([[3, 4], [0, 12]], dtype)) == 13.0
    assert_array_equal(nb.norm(np.array([[3, 4], [0, 12]], dtype), 1), [3.0, math.sqrt(160)])


@pytest.mark.parametrize("value", [-3, 2.5, np.float32(0.1), np.int64(2**40), np.array(7.0)], ids=repr)
def test_a_number(value):
    assert nb.norm(value) == abs(float(value))


def test_float16_does_not_overflow():  # N06, N06b
    assert nb.norm(np.float16([60000, 60000])) == pytest.approx(84852.81374, rel=1e-9)
    assert nb.norm(np.float16([300, 300, 300, 300, 60000])) == pytest.approx(60003.0, rel=1e-6)


# --- the ends of the range ------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [None, 0, 1], ids=["whole", "rows", "columns"])
@pytest.mark.parametrize(
    ("element", "count", "expected"),
    [
        (1e200, 4, 2e200),
        (1e-200, 4, 2e-200),
        (1e154, 4, 2e154),
        (1e-140, 4, 2e-140),
        (5e-324, 1, 5e-324),
        (5e-324, 4, 1e-323),
        (2.0**-1022, 16, 2.0**-1020),
        (2.0**1021, 4, 2.0**1022),
        (LARGEST, 1, LARGEST),
        (LARGEST / 4, 16, LARGEST),
        (1.7e308, 4, math.inf),
        (LARGEST, 2, math.inf),
    ],
)
def test_float64_rescue(element, count, expected, dim):
    """Blocks whose squares leave the range: N03, N04, N5d, N16d."""
    x = np.full(count, element)
    if dim is None:
        assert nb.norm(x) == pytest.approx(expected, rel=1e-15, abs=0)
        return
    three = np.stack([x, np.ones(count), np.zeros(count)], axis=dim)
    assert_array_equal(nb.norm(three, 1 - dim).shape, (count,))
    assert nb.norm(three, dim) == pytest.approx([expected, math.sqrt(count), 0.0], rel=1e-15, abs=0)


@pytest.mark.parametrize("tail", [1e-200, 1e-100, 1.0, 1e100, 1e200])
@pytest.mark.parametrize("head", [1e-200, 1e-100, 1.0, 1e100, 1e200])
def test_float64_blocks_of_different_bins(head, tail):
    x = np.concatenate([np.full(4096, head), np.full(4096, tail), np.zeros(4096), np.full(100, tail)])
    check(nb.norm(x), [x], 39 + 2)
    check(float(nb.norm(x[:, None], 1)[0]), [x], 39 + 2)


@pytest.mark.parametrize(
    ("element", "expected"),
    [(1e30, 2e30), (1e-30, 2e-30), (1e-45, 2 * 2.0**-149), (3.4e38, 6.8e38)],
)
def test_float32_needs_no_rescue(element, expected):
    """N01, N02, N05, N16: the norm may exceed the float32 range."""
    found = nb.norm(np.full(4, element, np.float32))
    assert found == 2 * float(np.float32(element))
    assert found == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [normal, planted, subnormal], ids=lambda f: f.__name__)
def test_one_bad_element_is_seen(kind, dtype, bad):
    rng = np.random.default_rng(3)
    for size in (1, 2, 127, 129, 4096, 4097, 20_000):
        x = kind(rng, size, dtype) / 16  # of which no norm overflows
        assert math.isfinite(nb.norm(x))
        for at in {0, size - 1, int(rng.integers(size))}:
            y = x.copy()
            y[at] = bad
            assert_array_equal(nb.norm(y), abs(bad))
            for dim, shape in ((0, (2, size)), (1, (size, 2))):
                pair = np.stack([y, x], axis=dim).reshape(shape)
                assert_array_equal(np.isfinite(nb.norm(pair, dim)), [False, True])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", list(itertools.permutations([math.nan, math.inf, 1.0])), ids=str)
def test_nan_wins_over_infinity(order, dtype):  # N09c
    assert math.isnan(nb.norm(np.array(order, dtype)))
    assert math.isnan(nb.norm(np.array(order, dtype)[None], 0)[0])


def test_finite_extremes_are_finite():
    for dtype in DTYPES:
        for value in (np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal):
            assert nb.norm(np.array([0, value, 0], dtype)) == float(value)


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "dim", "error", "words"),
    [
        ([1j], None, TypeError, "complex128"),
        ([True], None, TypeError, "bool"),
        (["a"], None, TypeError, "real numbers"),
        (None, None, TypeError, "object"),
        (np.array(["2020-01-01"], "datetime64[D]"), None, TypeError, "datetime64"),
        ([[1.0], [2.0, 3.0]], None, ValueError, "sequence"),
        ([[1.0]], 2, ParameterError, "0 <= dim < 2, got 2"),
        ([[1.0]], -1, ParameterError, "got -1"),
        (1.0, 0, ParameterError, "got 0"),
        ([1.0], 0.0, TypeError, "dim must be an integer"),
        ([1.0], True, TypeError, "dim must be an integer"),
        ([1.0], "0", TypeError, "dim must be an integer"),
        ([1.0], (0,), TypeError, "dim must be an integer"),
    ],
)
def test_refused(array, dim, error, words):
    with pytest.raises(error, match=words):
        nb.norm(array, dim)
