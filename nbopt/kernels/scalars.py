"""Every formula but the update rules: functions of floats, written once for every device, dtype and layout.

Functions of `ELEMENTWISE` run on elements, in the storage dtype, one rounding per written operation. All
others form the scalars of a step in float64; what they return is rounded once, where it meets an element.
"""

from __future__ import annotations

import math

import numpy as np

from nbopt.kernels.tables import BINS

# Constants of the storage dtype; binding replaces them for float64 (see `storage_constants`).
storage = np.float32
SHRINK = 1.0 - 2.0**-22
SMALLEST_NORMAL = 2.0**-126
LARGEST = float(np.finfo(np.float32).max)
# The exponent bins of a sum that are in use: the squares of float32 need the middle one alone.
BIN_FROM, BIN_TO = 1, 2

# Exact powers of two that bring a float64 square into range (contract N2).
UP = 2.0**600
DOWN = 2.0**-600
FAR = 2.0**1000
TINY = 2.0**-1022  # the smallest normal float64

SPILL = 16384  # updates of an average after which its sums move on, as in Paddle


def storage_constants(dtype: np.dtype) -> dict[str, object]:
    """Return the constants above for one storage dtype, by name."""
    info, single = np.finfo(dtype), dtype == np.float32
    return {
        "storage": dtype.type,
        "SHRINK": 1.0 - (2.0**-22 if single else 2.0**-44),
        "SMALLEST_NORMAL": float(info.smallest_normal),
        "LARGEST": float(info.max),
        "BIN_FROM": 1 if single else 0,
        "BIN_TO": 2 if single else BINS,
    }


# --- gradients of elements


def scaled(factor, grad):
    """Gradient of a plain parameter after rescale and clip."""
    return factor * grad


def tangent(alpha, beta, direction, v):
    """dL/dv of weight norm, alpha = factor g/|v|, beta = v.d/|v|^2 (Salimans and Kingma 2016, eq. 3)."""
    return alpha * (direction - beta * v)


def clamp(value, low, high):
    """`value` inside [low, high]; NaN stays NaN."""
    if value < low:
        return low
    if value > high:
        return high
    return value


def ridge(grad, param, l2):
    """Add the gradient of l2/2 param^2; 0 adds nothing, also to an infinite parameter."""
    if l2 == 0:
        return grad
    return grad + l2 * param


def lasso(grad, param, l1):
    """Add the gradient of l1 |param|, with sign(0) = 0 (as Paddle's L1Decay)."""
    if param > 0:
        return grad + l1
    if param < 0:
        return grad - l1
    return grad


def recomposed(factor, v):
    """w of weight norm: factor v, factor = g/|v|."""
    return factor * v


# --- averages of elements


def added(total, value):
    """A sum and one more value."""
    return total + value


def mean(first, second, third, count):
    """The mean of all values that three sums hold."""
    return (first + second + third) / count


def decayed(average, value, decay, rest):
    """An exponential average and one more value; rest is 1 - decay."""
    return decay * average + rest * value


def unbiased(average, weight):
    """An exponential average that began at zero, over the weight of what it has taken in."""
    return average / weight


ELEMENTWISE = frozenset(
    {scaled, tangent, clamp, ridge, lasso, recomposed, added, mean, decayed, unbiased},
)


# --- scalars of a step, in float64


def is_normal(value):
    """Whether `value` is 0 or in the normal range of the storage dtype, where rounding costs one bit."""
    magnitude = math.fabs(value)
    return magnitude == 0.0 or (magnitude >= SMALLEST_NORMAL and magnitude <= LARGEST)


def rounded(value):
    """`value` rounded once to the storage dtype where that is normal, itself elsewhere."""
    if is_normal(value):
        return float(storage(value))
    return value


def magnitude_of(low, middle, high):
    """(m, scale) with m * scale the root of a sum kept in exponent bins; scale is an exact power of two."""
    if high != 0.0:
        return math.sqrt(high + middle * DOWN * DOWN), UP
    if middle != 0.0:
        return math.sqrt(middle + low * DOWN * DOWN), 1.0
    if low != 0.0:
        return math.sqrt(low), DOWN
    return 0.0, 1.0


def clip_coefficient(norm, scale, limit, shrink):
    """(c, power): a product by a power of two, then by c, brings a norm of `norm * scale` to the limit.

    `shrink` keeps what is rounded afterwards below the limit. (1, 1) at or below the limit. No epsilon:
    limit 0 gives 0, limit inf and norm 0 change nothing.
    """
    if norm <= limit / scale or limit == math.inf:
        return 1.0, 1.0
    top = limit * shrink
    if scale < 1.0:
        return top / scale / norm, 1.0
    coefficient = top / norm
    if coefficient / scale >= TINY or limit == 0.0:
        return coefficient / scale, 1.0
    if coefficient >= TINY:
        return coefficient, 1.0 / scale
    return top * (FAR / scale) / norm, 1.0 / FAR


def direction_norm(alpha, dd, slope):
    """|dL/dv| = |g/|v|| sqrt(d.d - (v.d/|v|)^2), never below 0 by rounding; NaN stays NaN."""
    rest = dd - slope * slope
    if rest < 0.0:
        rest = 0.0
    return abs(alpha) * math.sqrt(rest)


def is_safe(square):
    """Whether a sum of squares is far enough from both ends of float64 that none was lost (contract N2)."""
    return square >= 1e-280 and square <= 1e300


def power_for(square):
    """The exact power of two to multiply numbers by whose sum of squares came out as `square`."""
    if is_safe(square):
        return 1.0
    return UP if square < 1e-280 else DOWN


def unscaled(value, power_v, power_d):
    """A dL/dv formed over v and d times exact powers of two, without them."""
    if power_v == power_d:
        return value
    return value * power_v / power_d


def bin_square(value):
    """The square of a number by exponent bin, (low, middle, high)."""
    square = value * value
    power = power_for(square)
    scaled_square = (value * power) * (value * power)
    if power == 1.0:
        return 0.0, square, 0.0
    if power == UP:
        return scaled_square, 0.0, 0.0
    return 0.0, 0.0, scaled_square


def tangent_scalars(magnitude, vv, vd):
    """(alpha, beta, slope) of a slice: dL/dv = alpha (d - beta v), dL/dg = slope."""
    inverse = inverse_norm(vv)
    slope = vd * inverse
    return magnitude * inverse, slope * inverse, slope


def inverse_norm(square):
    """1/|v|, and 0 for a zero slice (contract N6)."""
    if square == 0.0:
        return 0.0
    return 1.0 / math.sqrt(square)


def joined_factor(factor, power):
    """(factor, power) of w = factor (power v): one factor where that is normal, so that no v underflows."""
    whole = factor * power
    if whole != 0.0 and is_normal(whole):
        return whole, 1.0
    return factor, power


# --- scalars of averages


def is_spill(updates):
    """Whether the sum of this window moves on to the second sum, so that neither loses small values."""
    return updates % SPILL == 0


def is_full(accumulates, updates, rate, least, most):
    """Whether a window ends: it grows with the number of updates, between two bounds.

    As in Paddle, the product is one of float32 numbers, without its fraction.
    """
    share = np.float32(updates) * np.float32(rate)
    if accumulates < least:
        return False
    if share >= most:
        return accumulates >= most
    return accumulates >= int(share)
