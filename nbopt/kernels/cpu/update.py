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
from nbopt.kernels.normed import (
    accumulator_rows,
    advance,
    compose_factors,
    constants,
    is_composed_fast,
    is_fast,
    scalars_of,
    update_magnitudes,
    wide_tangent,
)
from nbopt.kernels.scalars import (
    clamp,
    lasso,
    recomposed,
    ridge,
    scaled,
    storage,
    tangent,
)
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
    SEGMENT_START,
    SEGMENTS,
    SLICE_FACTOR,
    SLICE_POWER,
    SLICE_POWER_D,
    SLICE_POWER_V,
    SLICE_SQUARE,
    SLICES,
    TRAINABLE,
)


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
