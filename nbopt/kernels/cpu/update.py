"""Pass 2 on the CPU: the rule over every element, with all policies applied, and the recomposition of w.

Each kind of gradient has two loops: the fast one in storage precision, and the general one with bounds, L1
and factors outside the normal range of the storage dtype, whose products are formed in float64 and rounded
once.
"""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np

from nbopt.kernels.cpu.reduce import slice_squares, tile_products
from nbopt.kernels.fold import fold_columns, rescued_products
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
from nbopt.kernels.tables import (
    CHUNK_FIRST,
    CHUNK_SEGMENT,
    CHUNK_SIZE,
    CHUNK_SPAN,
    CHUNK_START,
    CHUNKS,
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
    ROW_BLOCK,
    SEGMENT_DERIVED,
    SEGMENT_FIRST_SLICE,
    SEGMENT_INNER,
    SEGMENT_OUTER,
    SEGMENT_PARTNER,
    SEGMENT_ROW_BLOCKS,
    SEGMENT_SIZE,
    SEGMENT_SLICES,
    SEGMENT_START,
    SEGMENT_TILE,
    SEGMENTS,
    SLICE_ALPHA,
    SLICE_BETA,
    SLICE_POWER_D,
    SLICE_POWER_V,
    SLICE_SLOPE,
    SLICES,
    SPAN_PLAIN,
    SPAN_ROWS,
    TILES,
    TRAINABLE,
)

NORMED = True


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
    """Move the elements of slice `k` of a v, or a stretch of them, `step` apart."""
    coefficients, slices = reals(tables, COEFFICIENTS), reals(tables, SLICES)
    fixed = constants(tables, s)
    factor = coefficients[s, COEFFICIENT_FACTOR] * coefficients[s, COEFFICIENT_SCALE]
    alpha, beta = factor * slices[k, SLICE_ALPHA], slices[k, SLICE_BETA]
    power_v, power_d = slices[k, SLICE_POWER_V], slices[k, SLICE_POWER_D]
    l2 = storage(coefficients[s, COEFFICIENT_L2])
    normal = power_v == 1.0 and power_d == 1.0 and is_normal(alpha) and is_normal(beta)
    if normal and coefficients[s, COEFFICIENT_GENERAL] == 0.0:
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


def update_magnitude(j, s, tables):
    """Move element `j` of the g whose v is segment `s`; return its value."""
    segments, coefficients = integers(tables, SEGMENTS), reals(tables, COEFFICIENTS)
    partner = segments[s, SEGMENT_PARTNER]
    at = segments[partner, SEGMENT_START] + j
    param = elements(tables, TRAINABLE, storage)[at : at + 1]
    if coefficients[partner, COEFFICIENT_ACTIVE] != 0.0:
        slope = reals(tables, SLICES)[segments[s, SEGMENT_FIRST_SLICE] + j, SLICE_SLOPE]
        wide = coefficients[partner, COEFFICIENT_FACTOR] * coefficients[partner, COEFFICIENT_SCALE]
        low = storage(coefficients[partner, COEFFICIENT_LOW])
        high = storage(coefficients[partner, COEFFICIENT_HIGH])
        value = clamp(storage(scaled(wide, slope)), low, high)
        value = ridge(value, param[0], storage(coefficients[partner, COEFFICIENT_L2]))
        value = lasso(value, param[0], storage(coefficients[partner, COEFFICIENT_L1]))
        advance(0, param, accumulator_rows(tables, at, at + 1), value, constants(tables, partner))
    return np.float64(param[0])


def wide_tangent(alpha, beta, direction, v, power_v, power_d):
    """dL/dv in float64, over v and d times exact powers of two."""
    value = tangent(alpha, beta, np.float64(direction) * power_d, np.float64(v) * power_v)
    return unscaled(value, power_v, power_d)


def composing_factor(magnitude, square, v, start, outer, step, inner):
    """(factor, power): w = factor (power v) of the slice whose sum of squares is `square`."""
    square, _, _, power, _ = rescued_products(square, square, square, v, start, v, start, outer, step, inner)
    return magnitude * inverse_norm(square), power


def write_slice(w, v, begin, end, factor, power):
    """w = factor (power v) from `begin` to `end`."""
    if power == 1.0 and is_normal(factor):
        rounded = storage(factor)
        for i in range(begin, end):
            w[i] = recomposed(rounded, v[i])
    else:
        for i in range(begin, end):
            w[i] = storage(recomposed(factor, np.float64(v[i]) * power))


def update_rows(first, end, s, tables):
    """Move whole contiguous slices of a v and their g, and recompose w while v is in cache."""
    segments = integers(tables, SEGMENTS)
    inner = segments[s, SEGMENT_INNER]
    for k in range(first, end):
        j = k - segments[s, SEGMENT_FIRST_SLICE]
        begin = segments[s, SEGMENT_START] + j * inner
        derived = segments[s, SEGMENT_DERIVED] + j * inner
        param = elements(tables, TRAINABLE, storage)[begin : begin + inner]
        if reals(tables, COEFFICIENTS)[s, COEFFICIENT_ACTIVE] != 0.0:
            direction = elements(tables, DERIVED_GRADIENT, storage)[derived : derived + inner]
            rows = accumulator_rows(tables, begin, begin + inner)
            update_direction(param, direction, rows, 0, inner, 1, s, k, tables)
        magnitude = update_magnitude(j, s, tables)
        square = slice_squares(param, 0, inner)
        factor, power = composing_factor(magnitude, square, param, 0, 1, inner, inner)
        w = elements(tables, DERIVED, storage)[derived : derived + inner]
        write_slice(w, param, 0, inner, factor, power)


def update_tile(first, start, size, s, tables):
    """Move a tile of a v whose slices are columns, and sum its new squares."""
    segments = integers(tables, SEGMENTS)
    inner = segments[s, SEGMENT_INNER]
    columns = segments[s, SEGMENT_SLICES] * inner
    row = first * ROW_BLOCK
    rows = min(ROW_BLOCK, segments[s, SEGMENT_OUTER] - row)
    begin, derived = segments[s, SEGMENT_START], segments[s, SEGMENT_DERIVED]
    end = segments[s, SEGMENT_SIZE]
    param = elements(tables, TRAINABLE, storage)[begin : begin + end]
    if reals(tables, COEFFICIENTS)[s, COEFFICIENT_ACTIVE] != 0.0:
        direction = elements(tables, DERIVED_GRADIENT, storage)[derived : derived + end]
        held = accumulator_rows(tables, begin, begin + end)
        for column in range(start, start + size):
            k = segments[s, SEGMENT_FIRST_SLICE] + column // inner
            update_direction(param, direction, held, row * columns + column, rows, columns, s, k, tables)
    at = row * columns + start
    out = segments[s, SEGMENT_TILE] + first * columns + start
    tile_products(param, at, param, at, columns, rows, size, reals(tables, TILES), out)


def is_normed_active(s, tables):
    """Whether v or g of segment `s`, a v, moves in this step."""
    coefficients = reals(tables, COEFFICIENTS)
    partner = integers(tables, SEGMENTS)[s, SEGMENT_PARTNER]
    return coefficients[s, COEFFICIENT_ACTIVE] != 0.0 or coefficients[partner, COEFFICIENT_ACTIVE] != 0.0


def update_range(begin, end, tables):
    """Pass 2 over a run of chunks, for one thread."""
    chunks = integers(tables, CHUNKS)
    for c in range(begin, end):
        s, start, size = chunks[c, CHUNK_SEGMENT], chunks[c, CHUNK_START], chunks[c, CHUNK_SIZE]
        if not NORMED or chunks[c, CHUNK_SPAN] == SPAN_PLAIN:
            if reals(tables, COEFFICIENTS)[s, COEFFICIENT_ACTIVE] != 0.0:
                update_run(start, start + size, s, tables)
        elif is_normed_active(s, tables):
            first = chunks[c, CHUNK_FIRST]
            if chunks[c, CHUNK_SPAN] == SPAN_ROWS:
                update_rows(first, first + size, s, tables)
            else:
                update_tile(first, start, size, s, tables)


def recompose_tiles(tables):
    """Move the g, and write the w, of every v whose slices are columns."""
    segments, slices, tiles = (
        integers(tables, SEGMENTS),
        reals(tables, SLICES),
        reals(tables, TILES),
    )
    for s in range(segments.shape[0]):
        if segments[s, SEGMENT_ROW_BLOCKS] == 0 or not is_normed_active(s, tables):
            continue
        inner, count, tile = (
            segments[s, SEGMENT_INNER],
            segments[s, SEGMENT_SLICES],
            segments[s, SEGMENT_TILE],
        )
        first = segments[s, SEGMENT_FIRST_SLICE]
        fold_columns(1, tile, count * inner, inner, segments[s, SEGMENT_ROW_BLOCKS], tiles)
        begin, derived, size = (
            segments[s, SEGMENT_START],
            segments[s, SEGMENT_DERIVED],
            segments[s, SEGMENT_SIZE],
        )
        w = elements(tables, DERIVED, storage)[derived : derived + size]
        v = elements(tables, TRAINABLE, storage)[begin : begin + size]
        outer = segments[s, SEGMENT_OUTER]
        for j in range(count):
            magnitude = update_magnitude(j, s, tables)
            square = tiles[0, tile + j * inner]
            slices[first + j, SLICE_ALPHA], slices[first + j, SLICE_POWER_V] = composing_factor(
                magnitude, square, v, j * inner, outer, count * inner, inner
            )
        for run in range(outer * count):
            k = first + run % count
            write_slice(
                w, v, run * inner, (run + 1) * inner, slices[k, SLICE_ALPHA], slices[k, SLICE_POWER_V]
            )
