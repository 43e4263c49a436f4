"""Weight norm in pass 2: the scalars of a slice, its g, and what w is v times, for every device."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np

from nbopt.kernels.intrinsics import elements, integers, reals
from nbopt.kernels.scalars import (
    clamp,
    inverse_norm,
    is_normal,
    joined_factor,
    lasso,
    ridge,
    scaled,
    storage,
    tangent,
    unscaled,
)
from nbopt.kernels.slices import rescued_products
from nbopt.kernels.tables import (
    COEFFICIENT_ACTIVE,
    COEFFICIENT_FACTOR,
    COEFFICIENT_GENERAL,
    COEFFICIENT_HIGH,
    COEFFICIENT_L1,
    COEFFICIENT_L2,
    COEFFICIENT_LOW,
    COEFFICIENT_SCALE,
    COEFFICIENTS,
    SEGMENT_FIRST_SLICE,
    SEGMENT_INNER,
    SEGMENT_OUTER,
    SEGMENT_PARTNER,
    SEGMENT_SLICES,
    SEGMENT_START,
    SEGMENTS,
    SLICE_ALPHA,
    SLICE_BETA,
    SLICE_FACTOR,
    SLICE_POWER,
    SLICE_POWER_D,
    SLICE_POWER_V,
    SLICE_SLOPE,
    SLICE_SQUARE,
    SLICES,
    TRAINABLE,
)


def accumulator_rows(tables, begin, end):
    """Views of the accumulators from `begin` to `end`, a tuple. Replaced at binding by the rule's own."""


def constants(tables, s):
    """Rate and hyper-parameters of segment `s` in the storage dtype. Replaced at binding by the rule's."""


def advance(i, param, rows, grad, fixed):
    """Apply the rule to element `i`. Replaced at binding by the rule's own."""


def is_normed_active(s, tables):
    """Whether v or g of segment `s`, a v, moves in this step."""
    coefficients = reals(tables, COEFFICIENTS)
    partner = integers(tables, SEGMENTS)[s, SEGMENT_PARTNER]
    return coefficients[s, COEFFICIENT_ACTIVE] != 0.0 or coefficients[partner, COEFFICIENT_ACTIVE] != 0.0


def slice_at(start, s, tables):
    """The slice of the element `start` of a v."""
    segments = integers(tables, SEGMENTS)
    j = start // segments[s, SEGMENT_INNER] % segments[s, SEGMENT_SLICES]
    return segments[s, SEGMENT_FIRST_SLICE] + j


def scalars_of(k, s, tables):
    """(alpha, beta) of slice `k`, after rescale and clip: dL/dv = alpha (d - beta v)."""
    coefficients, slices = reals(tables, COEFFICIENTS), reals(tables, SLICES)
    factor = coefficients[s, COEFFICIENT_FACTOR] * coefficients[s, COEFFICIENT_SCALE]
    return factor * slices[SLICE_ALPHA, k], slices[SLICE_BETA, k]


def is_fast(alpha, beta, k, s, tables):
    """Whether slice `k` takes the arithmetic of the storage dtype."""
    slices = reals(tables, SLICES)
    one = slices[SLICE_POWER_V, k] == 1.0 and slices[SLICE_POWER_D, k] == 1.0
    plain = reals(tables, COEFFICIENTS)[s, COEFFICIENT_GENERAL] == 0.0
    return plain and one and is_normal(alpha) and is_normal(beta)


def wide_tangent(alpha, beta, direction, v, power_v, power_d):
    """dL/dv in float64, over v and d times exact powers of two."""
    value = tangent(alpha, beta, np.float64(direction) * power_d, np.float64(v) * power_v)
    return unscaled(value, power_v, power_d)


def update_magnitudes(first, end, s, tables):
    """Move the g of some slices of segment `s`, a v."""
    segments, coefficients = integers(tables, SEGMENTS), reals(tables, COEFFICIENTS)
    slices, partner = reals(tables, SLICES), segments[s, SEGMENT_PARTNER]
    if coefficients[partner, COEFFICIENT_ACTIVE] == 0.0:
        return
    begin = segments[partner, SEGMENT_START] + first - segments[s, SEGMENT_FIRST_SLICE]
    param = elements(tables, TRAINABLE, storage)[begin : begin + end - first]
    rows = accumulator_rows(tables, begin, begin + end - first)
    fixed, slope = constants(tables, partner), slices[SLICE_SLOPE, first:end]
    wide = coefficients[partner, COEFFICIENT_FACTOR] * coefficients[partner, COEFFICIENT_SCALE]
    low = storage(coefficients[partner, COEFFICIENT_LOW])
    high = storage(coefficients[partner, COEFFICIENT_HIGH])
    l1 = storage(coefficients[partner, COEFFICIENT_L1])
    l2 = storage(coefficients[partner, COEFFICIENT_L2])
    for i in range(param.size):
        value = clamp(storage(scaled(wide, slope[i])), low, high)
        advance(i, param, rows, lasso(ridge(value, param[i], l2), param[i], l1), fixed)


def compose_factors(first, end, s, tables):
    """Write what w is v times, for some slices: g over the new norm of v."""
    segments, slices = integers(tables, SEGMENTS), reals(tables, SLICES)
    trainable, inner = elements(tables, TRAINABLE, storage), segments[s, SEGMENT_INNER]
    begin, outer = segments[s, SEGMENT_START], segments[s, SEGMENT_OUTER]
    magnitudes = segments[segments[s, SEGMENT_PARTNER], SEGMENT_START]
    columns = segments[s, SEGMENT_SLICES] * inner
    for k in range(first, end):
        j, square = k - segments[s, SEGMENT_FIRST_SLICE], slices[SLICE_SQUARE, k]
        at = begin + j * inner
        square, _, _, power, _ = rescued_products(
            square, square, square, trainable, at, trainable, at, outer, columns, inner
        )
        slices[SLICE_FACTOR, k], slices[SLICE_POWER, k] = joined_factor(
            np.float64(trainable[magnitudes + j]) * inverse_norm(square), power
        )


def is_composed_fast(factor, power):
    """Whether w = factor (power v) takes the arithmetic of the storage dtype."""
    return power == 1.0 and is_normal(factor)
