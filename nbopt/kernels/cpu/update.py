"""Pass 2 on the CPU: the rule over every element, with all policies applied, and the recomposition of w.

Each kind of gradient has two loops: the fast one in storage precision, and the general one with bounds, L1
and factors outside the normal range of the storage dtype, whose products are formed in float64 and rounded
once.
"""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np

from nbopt.kernels.cpu.reduce import slice_squares
from nbopt.kernels.intrinsics import elements, integers, reals
from nbopt.kernels.scalars import (
    clamp,
    inverse_norm,
    is_normal,
    lasso,
    recomposed,
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
    DERIVED,
    DERIVED_GRADIENT,
    GRADIENT,
    SEGMENT_DERIVED,
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


def update_run(begin, end, s, tables):
    """Move a run of elements of a plain parameter."""
    coefficients = reals(tables, COEFFICIENTS)
    param = elements(tables, TRAINABLE, storage)[begin:end]
    raw = elements(tables, GRADIENT, storage)[begin:end]
    rows = accumulator_rows(tables, begin, end)
    fixed = constants(tables, s)
    l2 = storage(coefficients[s, COEFFICIENT_L2])
    if coefficients[s, COEFFICIENT_GENERAL] == 0.0:
        factor = storage(coefficients[s, COEFFICIENT_FACTOR])
        for i in range(param.size):
            advance(i, param, rows, ridge(scaled(factor, raw[i]), param[i], l2), fixed)
        return
    wide, scale = coefficients[s, COEFFICIENT_FACTOR], coefficients[s, COEFFICIENT_SCALE]
    low, high = (
        storage(coefficients[s, COEFFICIENT_LOW]),
        storage(coefficients[s, COEFFICIENT_HIGH]),
    )
    l1 = storage(coefficients[s, COEFFICIENT_L1])
    for i in range(param.size):
        value = clamp(storage(scaled(wide, np.float64(raw[i]) * scale)), low, high)
        advance(i, param, rows, lasso(ridge(value, param[i], l2), param[i], l1), fixed)


def update_direction(param, direction, rows, first, count, step, s, k, tables):
    """Move the elements of slice `k` of a v, or a stretch of them, `step` apart, whatever its scalars."""
    coefficients, slices = reals(tables, COEFFICIENTS), reals(tables, SLICES)
    fixed = constants(tables, s)
    alpha, beta = scalars_of(k, s, tables)
    power_v, power_d = slices[SLICE_POWER_V, k], slices[SLICE_POWER_D, k]
    l2 = storage(coefficients[s, COEFFICIENT_L2])
    if is_fast(alpha, beta, k, s, tables):
        near, far = storage(alpha), storage(beta)
        for r in range(count):
            i = first + r * step
            advance(i, param, rows, ridge(tangent(near, far, direction[i], param[i]), param[i], l2), fixed)
        return
    low, high = storage(coefficients[s, COEFFICIENT_LOW]), storage(coefficients[s, COEFFICIENT_HIGH])
    l1 = storage(coefficients[s, COEFFICIENT_L1])
    for r in range(count):
        i = first + r * step
        value = wide_tangent(alpha, beta, direction[i], param[i], power_v, power_d)
        value = clamp(storage(value), low, high)
        advance(i, param, rows, lasso(ridge(value, param[i], l2), param[i], l1), fixed)


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


def is_normed_active(s, tables):
    """Whether v or g of segment `s`, a v, moves in this step."""
    coefficients = reals(tables, COEFFICIENTS)
    partner = integers(tables, SEGMENTS)[s, SEGMENT_PARTNER]
    return coefficients[s, COEFFICIENT_ACTIVE] != 0.0 or coefficients[partner, COEFFICIENT_ACTIVE] != 0.0


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
        slices[SLICE_FACTOR, k] = np.float64(trainable[magnitudes + j]) * inverse_norm(square)
        slices[SLICE_POWER, k] = power


def is_composed_fast(factor, power):
    """Whether w = factor (power v) takes the arithmetic of the storage dtype."""
    return power == 1.0 and is_normal(factor)


def write_slice(w, v, first, count, step, factor, power):
    """w = factor (power v) of the elements of a slice, or a stretch of them, `step` apart."""
    if is_composed_fast(factor, power):
        rounded = storage(factor)
        for r in range(count):
            i = first + r * step
            w[i] = recomposed(rounded, v[i])
    else:
        for r in range(count):
            i = first + r * step
            w[i] = storage(recomposed(factor, np.float64(v[i]) * power))


def update_slice(near, far, l2, fixed, begin, derived, size, tables):
    """Move a contiguous stretch of a slice whose scalars are in range."""
    v = elements(tables, TRAINABLE, storage)[begin : begin + size]
    direction = elements(tables, DERIVED_GRADIENT, storage)[derived : derived + size]
    rows = accumulator_rows(tables, begin, begin + size)
    for i in range(size):
        advance(i, v, rows, ridge(tangent(near, far, direction[i], v[i]), v[i], l2), fixed)


def compose_run(w, v, factor):
    """w = factor v."""
    for i in range(w.size):
        w[i] = recomposed(factor, v[i])


def update_rows(first, end, s, tables):
    """Move whole contiguous slices of a v and their g, and recompose w while v is in cache."""
    segments, slices = integers(tables, SEGMENTS), reals(tables, SLICES)
    coefficients = reals(tables, COEFFICIENTS)
    inner = segments[s, SEGMENT_INNER]
    at, size = (first - segments[s, SEGMENT_FIRST_SLICE]) * inner, (end - first) * inner
    begin, derived = segments[s, SEGMENT_START] + at, segments[s, SEGMENT_DERIVED] + at
    v = elements(tables, TRAINABLE, storage)[begin : begin + size]
    if coefficients[s, COEFFICIENT_ACTIVE] != 0.0:
        direction = elements(tables, DERIVED_GRADIENT, storage)[derived : derived + size]
        rows = accumulator_rows(tables, begin, begin + size)
        fixed = constants(tables, s)
        l2 = storage(coefficients[s, COEFFICIENT_L2])
        for k in range(first, end):
            start = (k - first) * inner
            alpha, beta = scalars_of(k, s, tables)
            if is_fast(alpha, beta, k, s, tables):
                near, far = storage(alpha), storage(beta)
                update_slice(near, far, l2, fixed, begin + start, derived + start, inner, tables)
            else:
                update_direction(v, direction, rows, start, inner, 1, s, k, tables)
    for k in range(first, end):
        slices[SLICE_SQUARE, k] = slice_squares(v, (k - first) * inner, inner)
    update_magnitudes(first, end, s, tables)
    compose_factors(first, end, s, tables)
    w = elements(tables, DERIVED, storage)[derived : derived + size]
    for k in range(first, end):
        start, factor, power = (k - first) * inner, slices[SLICE_FACTOR, k], slices[SLICE_POWER, k]
        if is_composed_fast(factor, power):
            compose_run(w[start : start + inner], v[start : start + inner], storage(factor))
        else:
            write_slice(w, v, start, inner, 1, factor, power)
