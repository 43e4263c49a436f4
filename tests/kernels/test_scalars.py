"""Every formula on plain floats, at its edges."""

import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from nbopt.kernels import scalars

NAN, INF = math.nan, math.inf
MARGIN = 1 - 2.0**-22
SINGLE = float(np.finfo(np.float32).max)


# --- elements -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0.5, -1.0, 1.0), 0.5),
        ((3.0, -1.0, 1.0), 1.0),
        ((-3.0, -1.0, 1.0), -1.0),
        ((1.0, -1.0, 1.0), 1.0),
        ((NAN, -1.0, 1.0), NAN),
        ((INF, -1.0, 1.0), 1.0),
        ((-INF, -INF, INF), -INF),
        ((NAN, -INF, INF), NAN),
        ((-0.0, 0.0, 0.0), -0.0),
        ((2.0, 3.0, 3.0), 3.0),
    ],
)
def test_clamp(arguments, expected):
    assert_array_equal(scalars.clamp(*arguments), expected)


@pytest.mark.parametrize(
    ("grad", "param", "l1", "expected"),
    [
        (1.0, 2.0, 0.5, 1.5),
        (1.0, -2.0, 0.5, 0.5),
        (1.0, 0.0, 0.5, 1.0),
        (1.0, -0.0, 0.5, 1.0),
        (1.0, NAN, 0.5, 1.0),
        (1.0, 5e-324, 0.5, 1.5),
        (1.0, -INF, 0.5, 0.5),
    ],
)
def test_lasso_has_no_slope_at_zero(grad, param, l1, expected):
    assert scalars.lasso(grad, param, l1) == expected


@pytest.mark.parametrize(
    ("grad", "param", "l2", "expected"),
    [
        (1.0, 2.0, 0.5, 2.0),
        (1.0, -2.0, 0.5, 0.0),
        (1.0, INF, 0.0, 1.0),
        (1.0, NAN, 0.0, 1.0),
        (-0.0, 3.0, 0.0, -0.0),
        (1.0, INF, 0.5, INF),
        (1.0, NAN, 0.5, NAN),
    ],
)
def test_ridge_of_coefficient_zero_adds_nothing(grad, param, l2, expected):
    found = scalars.ridge(grad, param, l2)
    assert_array_equal(found, expected)
    assert math.copysign(1, found) == math.copysign(1, expected)


def test_tangent_is_the_gradient_of_the_direction():
    """alpha (d - beta v) against a numeric derivative of L = d . g v/|v|."""
    rng = np.random.default_rng(0)
    v, d, g = rng.standard_normal(7), rng.standard_normal(7), 1.7
    square, slope = float(v @ v), float(v @ d)
    alpha, beta = g * scalars.inverse_norm(square), slope / square
    for i in range(7):
        ends = []
        for step in (-1e-6, 1e-6):
            moved = v.copy()
            moved[i] += step
            ends.append(g * float(d @ moved) / math.sqrt(float(moved @ moved)))
        assert scalars.tangent(alpha, beta, d[i], v[i]) == pytest.approx((ends[1] - ends[0]) / 2e-6, abs=1e-8)
    assert scalars.recomposed(alpha, v[0]) == g * scalars.inverse_norm(square) * v[0]
    assert scalars.scaled(0.5, 3.0) == 1.5


# --- scalars of a step ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("norm", "scale", "limit"),
    [
        pytest.param(4.0, 1.0, 5.0, id="below"),
        pytest.param(5.0, 1.0, 5.0, id="at"),
        pytest.param(0.0, 1.0, 1.0, id="norm-zero"),
        pytest.param(0.0, 1.0, 0.0, id="norm-and-limit-zero"),
        pytest.param(5.0, 1.0, INF, id="limit-infinite"),
        pytest.param(INF, 1.0, INF, id="both-infinite"),
        pytest.param(NAN, 1.0, INF, id="nan-limit-infinite"),
        pytest.param(4.0, scalars.UP, 2e181, id="high-bin"),
        pytest.param(1e200, scalars.UP, INF, id="above-float64-limit-infinite"),
        pytest.param(4.0, scalars.DOWN, 1.0, id="low-bin"),
    ],
)
def test_clip_coefficient_is_one_at_or_below_the_limit(norm, scale, limit):
    assert scalars.clip_coefficient(norm, scale, limit, MARGIN) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("norm", "scale", "limit"),
    [
        pytest.param(5.0, 1.0, 1.0, id="above"),
        pytest.param(5.0, 1.0, 0.0, id="limit-zero"),
        pytest.param(4.0, scalars.UP, 1.0, id="high-bin"),
        pytest.param(1e128, scalars.UP, 1e308, id="above-float64"),
        pytest.param(4.0, scalars.DOWN, 1e-300, id="low-bin"),
        pytest.param(1e120, 1.0, 2.57e-203, id="subnormal-quotient"),
        pytest.param(1e120, scalars.UP, 1e-300, id="quotient-below-float64"),
    ],
)
def test_clip_coefficient_brings_the_norm_below_the_limit(norm, scale, limit):
    """The two factors together are limit * margin / norm, to the last bits, whatever their own sizes."""
    coefficient, factor = scalars.clip_coefficient(norm, scale, limit, MARGIN)
    assert math.frexp(factor)[0] == 0.5
    product = Fraction(coefficient) * Fraction(factor) * Fraction(norm) * Fraction(scale)
    assert abs(product - Fraction(limit) * Fraction(MARGIN)) <= Fraction(limit) / 2**51


def test_clip_coefficient_of_an_infinite_norm_is_zero():
    assert scalars.clip_coefficient(INF, 1.0, 1.0, MARGIN)[0] == 0.0


def test_clip_coefficient_of_nan_is_nan():
    assert math.isnan(scalars.clip_coefficient(NAN, 1.0, 1.0, MARGIN)[0])


@pytest.mark.parametrize(
    ("sums", "expected"),
    [
        ((0.0, 25.0, 0.0), (5.0, 1.0)),
        ((25.0, 0.0, 0.0), (5.0, scalars.DOWN)),
        ((0.0, 0.0, 25.0), (5.0, scalars.UP)),
        ((0.0, 0.0, 0.0), (0.0, 1.0)),
        ((1e300, 25.0, 0.0), (5.0, 1.0)),
        ((1e300, 25.0, 16.0), (4.0, scalars.UP)),
        ((25.0 * 2.0**800, 3.0 * 2.0**-400, 0.0), (math.sqrt(28.0) * 2.0**-200, 1.0)),
        ((0.0, 24.0 * 2.0**900, 2.0**-300), (5.0 * 2.0**-150, scalars.UP)),
        ((0.0, INF, 0.0), (INF, 1.0)),
        ((0.0, 1.0, INF), (INF, scalars.UP)),
    ],
)
def test_magnitude_of_joins_the_bins(sums, expected):
    assert scalars.magnitude_of(*sums) == expected


@pytest.mark.parametrize(
    "sums", [(NAN, 1.0, 0.0), (0.0, NAN, 0.0), (0.0, NAN, 1.0), (0.0, 1.0, NAN)], ids=str
)
def test_magnitude_of_keeps_nan(sums):
    assert math.isnan(scalars.magnitude_of(*sums)[0])


@pytest.mark.parametrize(
    ("alpha", "dd", "slope", "expected"),
    [
        (2.0, 25.0, 3.0, 8.0),
        (-2.0, 25.0, -3.0, 8.0),
        (2.0, 9.0, 3.0, 0.0),
        (2.0, 9.0, 3.0000001, 0.0),
        (0.0, 9.0, 1.0, 0.0),
        (NAN, 9.0, 1.0, NAN),
        (2.0, NAN, 1.0, NAN),
        (2.0, 9.0, NAN, NAN),
        (2.0, INF, INF, NAN),
    ],
)
def test_direction_norm_is_never_negative(alpha, dd, slope, expected):
    assert_array_equal(scalars.direction_norm(alpha, dd, slope), expected)


@pytest.mark.parametrize(
    ("square", "power"),
    [
        (1.0, 1.0),
        (1e-280, 1.0),
        (1e300, 1.0),
        (9e-281, scalars.UP),
        (0.0, scalars.UP),
        (1.1e300, scalars.DOWN),
        (INF, scalars.DOWN),
        (NAN, scalars.DOWN),
    ],
)
def test_unsafe_squares_ask_for_a_power_of_two(square, power):
    assert scalars.is_safe(square) is (power == 1.0)
    assert scalars.power_for(square) == power


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e-140, 1e-200, 5e-324, 1e150, -1e200, 1.7e308])
def test_bin_square_goes_to_one_bin(value):
    low, middle, high = scalars.bin_square(value)
    assert sum(x != 0.0 for x in (low, middle, high)) == (value != 0.0)
    root, scale = scalars.magnitude_of(low, middle, high)
    assert root * scale == pytest.approx(abs(value), rel=1e-15, abs=0)
    assert math.isnan(max(scalars.bin_square(NAN), key=math.isnan))


@pytest.mark.parametrize(("square", "expected"), [(4.0, 0.5), (0.0, 0.0), (INF, 0.0), (2.0**-1000, 2.0**500)])
def test_inverse_norm(square, expected):
    assert scalars.inverse_norm(square) == expected


# --- the storage dtype ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "normal"),
    [
        (0.0, True),
        (1.0, True),
        (-(2.0**-126), True),
        (2.0**-126 * (1 - 2.0**-30), False),
        (SINGLE, True),
        (-SINGLE * 1.0000001, False),
        (INF, False),
        (NAN, False),
    ],
)
def test_normal_range_and_rounding(value, normal):
    """The constants of the module are those of float32."""
    assert scalars.is_normal(value) is normal
    expected = float(np.float32(value)) if normal else value
    assert_array_equal(scalars.rounded(value), expected)


def test_rounding_is_to_nearest():
    assert scalars.rounded(0.1) == float(np.float32(0.1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constants_of_each_dtype(dtype):
    found = scalars.storage_constants(np.dtype(dtype))
    info = np.finfo(dtype)
    assert found["storage"] is dtype
    assert found["SHRINK"] == 1 - {np.float32: 2.0**-22, np.float64: 2.0**-44}[dtype]
    assert found["SMALLEST_NORMAL"] == float(info.tiny)
    assert found["LARGEST"] == float(info.max)
    if dtype is np.float32:
        assert {name: getattr(scalars, name) for name in found} == found


def test_powers_of_two_are_exact():
    assert math.frexp(scalars.UP) == (0.5, 601)
    assert scalars.UP * scalars.DOWN == 1.0
