"""Pass 2 on the CPU: the rule over every element, with all policies applied, and the recomposition of w.

Each kind of gradient has two loops: the fast one in storage precision, and the general one with bounds, L1 and
factors outside the normal range of the storage dtype, whose products are formed in float64 and rounded once.
"""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np

from nbopt.kernels.cpu.reduce import slice_squares, tile_products
from nbopt.kernels.fold import fold_columns
from nbopt.kernels.intrinsics import borrow
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
)
from nbopt.kernels.tables import (
    CHUNK_FIRST,
    CHUNK_SEGMENT,
    CHUNK_SIZE,
    CHUNK_SPAN,
    CHUNK_START,
    COEFFICIENT_ACTIVE,
    COEFFICIENT_FACTOR,
    COEFFICIENT_GENERAL,
    COEFFICIENT_HIGH,
    COEFFICIENT_L1,
    COEFFICIENT_L2,
    COEFFICIENT_LOW,
    COEFFICIENT_SCALE,
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
    SLICE_FACTOR,
    SLICE_SCALE,
    SLICE_SLOPE,
    SPAN_PLAIN,
    SPAN_ROWS,
)

NORMED = True


def accumulator_rows(accumulators, begin, end):
    """Views of the accumulators from `begin` to `end`, a tuple. Replaced at binding by the rule's own."""


def constants(coefficients, s):
    """Rate and hyper-parameters of segment `s`, a tuple in the storage dtype. Replaced at binding by the rule's own."""


def advance(i, param, rows, grad, fixed):
    """Apply the rule to element `i`. Replaced at binding by the rule's own."""


def update_run(begin, end, data, grad, accumulators, offset, s, coefficients):
    """Move a run of elements of a plain parameter."""
    param = borrow(data)[offset + begin : offset + end]
    raw = borrow(grad)[offset + begin : offset + end]
    rows = accumulator_rows(accumulators, begin, end)
    fixed = constants(coefficients, s)
    l2 = storage(coefficients[s, COEFFICIENT_L2])
    if coefficients[s, COEFFICIENT_GENERAL] == 0.0:
        factor = storage(coefficients[s, COEFFICIENT_FACTOR])
        for i in range(param.size):
            advance(i, param, rows, ridge(scaled(factor, raw[i]), param[i], l2), fixed)
        return
    wide, scale = coefficients[s, COEFFICIENT_FACTOR], coefficients[s, COEFFICIENT_SCALE]
    low, high = storage(coefficients[s, COEFFICIENT_LOW]), storage(coefficients[s, COEFFICIENT_HIGH])
    l1 = storage(coefficients[s, COEFFICIENT_L1])
    for i in range(param.size):
        value = clamp(storage(scaled(wide, np.float64(raw[i]) * scale)), low, high)
        advance(i, param, rows, lasso(ridge(value, param[i], l2), param[i], l1), fixed)


def update_direction(param, direction, rows, first, count, step, s, k, slices, coefficients):
    """Move the elements of slice `k` of a v, or a stretch of them, `step` apart."""
    fixed = constants(coefficients, s)
    alpha = coefficients[s, COEFFICIENT_FACTOR] * coefficients[s, COEFFICIENT_SCALE] * slices[k, SLICE_FACTOR]
    beta = slices[k, SLICE_SLOPE] * slices[k, SLICE_SCALE]
    l2 = storage(coefficients[s, COEFFICIENT_L2])
    if coefficients[s, COEFFICIENT_GENERAL] == 0.0 and is_normal(alpha) and is_normal(beta):
        near, far = storage(alpha), storage(beta)
        for r in range(count):
            i = first + r * step
            advance(i, param, rows, ridge(tangent(near, far, direction[i], param[i]), param[i], l2), fixed)
        return
    low, high = storage(coefficients[s, COEFFICIENT_LOW]), storage(coefficients[s, COEFFICIENT_HIGH])
    l1 = storage(coefficients[s, COEFFICIENT_L1])
    for r in range(count):
        i = first + r * step
        value = storage(tangent(alpha, beta, np.float64(direction[i]), np.float64(param[i])))
        value = clamp(value, low, high)
        advance(i, param, rows, lasso(ridge(value, param[i], l2), param[i], l1), fixed)


def update_magnitude(j, data, accumulators, offset, s, segments, slices, coefficients):
    """Move element `j` of the g whose v is segment `s`."""
    partner = segments[s, SEGMENT_PARTNER]
    if coefficients[partner, COEFFICIENT_ACTIVE] == 0.0:
        return
    at = segments[partner, SEGMENT_START] + j
    param = borrow(data)[offset + at : offset + at + 1]
    slope = slices[segments[s, SEGMENT_FIRST_SLICE] + j, SLICE_SLOPE]
    wide = coefficients[partner, COEFFICIENT_FACTOR] * coefficients[partner, COEFFICIENT_SCALE]
    low = storage(coefficients[partner, COEFFICIENT_LOW])
    high = storage(coefficients[partner, COEFFICIENT_HIGH])
    value = clamp(storage(scaled(wide, slope)), low, high)
    value = ridge(value, param[0], storage(coefficients[partner, COEFFICIENT_L2]))
    value = lasso(value, param[0], storage(coefficients[partner, COEFFICIENT_L1]))
    advance(0, param, accumulator_rows(accumulators, at, at + 1), value, constants(coefficients, partner))


def write_slice(w, v, begin, end, factor):
    """w = factor v from `begin` to `end`."""
    if is_normal(factor):
        rounded = storage(factor)
        for i in range(begin, end):
            w[i] = recomposed(rounded, v[i])
    else:
        for i in range(begin, end):
            w[i] = storage(recomposed(factor, np.float64(v[i])))


def update_rows(first, end, data, grad, accumulators, offset, s, segments, slices, coefficients):
    """Move whole contiguous slices of a v and their g, and recompose w while v is in cache."""
    inner = segments[s, SEGMENT_INNER]
    for k in range(first, end):
        j = k - segments[s, SEGMENT_FIRST_SLICE]
        begin = segments[s, SEGMENT_START] + j * inner
        derived = segments[s, SEGMENT_DERIVED] + j * inner
        param = borrow(data)[offset + begin : offset + begin + inner]
        if coefficients[s, COEFFICIENT_ACTIVE] != 0.0:
            rows = accumulator_rows(accumulators, begin, begin + inner)
            direction = borrow(grad)[derived : derived + inner]
            update_direction(param, direction, rows, 0, inner, 1, s, k, slices, coefficients)
        update_magnitude(j, data, accumulators, offset, s, segments, slices, coefficients)
        magnitude = np.float64(data[offset + segments[segments[s, SEGMENT_PARTNER], SEGMENT_START] + j])
        factor = magnitude * inverse_norm(slice_squares(data, offset + begin, inner))
        write_slice(borrow(data)[derived : derived + inner], param, 0, inner, factor)


def update_tile(first, start, size, data, grad, accumulators, offset, s, segments, slices, tiles, coefficients):
    """Move a tile of a v whose slices are columns, and sum its new squares."""
    inner = segments[s, SEGMENT_INNER]
    columns = segments[s, SEGMENT_SLICES] * inner
    row = first * ROW_BLOCK
    rows = min(ROW_BLOCK, segments[s, SEGMENT_OUTER] - row)
    begin, size_of_v = segments[s, SEGMENT_START], segments[s, SEGMENT_SIZE]
    if coefficients[s, COEFFICIENT_ACTIVE] != 0.0:
        param = borrow(data)[offset + begin : offset + begin + size_of_v]
        derived = segments[s, SEGMENT_DERIVED]
        direction = borrow(grad)[derived : derived + size_of_v]
        held = accumulator_rows(accumulators, begin, begin + size_of_v)
        for column in range(start, start + size):
            k = segments[s, SEGMENT_FIRST_SLICE] + column // inner
            at = row * columns + column
            update_direction(param, direction, held, at, rows, columns, s, k, slices, coefficients)
    at = offset + begin + row * columns + start
    out = segments[s, SEGMENT_TILE] + first * columns + start
    tile_products(data, at, data, at, columns, rows, size, tiles, out)


def is_normed_active(s, segments, coefficients):
    """Whether v or g of segment `s`, a v, moves in this step."""
    partner = segments[s, SEGMENT_PARTNER]
    return coefficients[s, COEFFICIENT_ACTIVE] != 0.0 or coefficients[partner, COEFFICIENT_ACTIVE] != 0.0


def update_range(begin, end, data, grad, accumulators, offset, chunks, segments, slices, tiles, coefficients):
    """Pass 2 over a run of chunks, for one thread."""
    for c in range(begin, end):
        s, start, size = chunks[c, CHUNK_SEGMENT], chunks[c, CHUNK_START], chunks[c, CHUNK_SIZE]
        first = chunks[c, CHUNK_FIRST]
        if not NORMED or chunks[c, CHUNK_SPAN] == SPAN_PLAIN:
            if coefficients[s, COEFFICIENT_ACTIVE] != 0.0:
                update_run(start, start + size, data, grad, accumulators, offset, s, coefficients)
        elif is_normed_active(s, segments, coefficients):
            if chunks[c, CHUNK_SPAN] == SPAN_ROWS:
                update_rows(
                    first, first + size, data, grad, accumulators, offset, s, segments, slices, coefficients
                )
            else:
                update_tile(
                    first, start, size, data, grad, accumulators, offset, s, segments, slices, tiles, coefficients
                )


def recompose_tiles(data, accumulators, offset, segments, slices, tiles, coefficients):
    """Move the g, and write the w, of every v whose slices are columns."""
    for s in range(segments.shape[0]):
        if segments[s, SEGMENT_ROW_BLOCKS] == 0 or not is_normed_active(s, segments, coefficients):
            continue
        inner, count, tile = segments[s, SEGMENT_INNER], segments[s, SEGMENT_SLICES], segments[s, SEGMENT_TILE]
        first = segments[s, SEGMENT_FIRST_SLICE]
        magnitudes = offset + segments[segments[s, SEGMENT_PARTNER], SEGMENT_START]
        fold_columns(1, tile, count * inner, inner, segments[s, SEGMENT_ROW_BLOCKS], tiles)
        for j in range(count):
            update_magnitude(j, data, accumulators, offset, s, segments, slices, coefficients)
            scale = inverse_norm(tiles[0, tile + j * inner])
            slices[first + j, SLICE_FACTOR] = np.float64(data[magnitudes + j]) * scale
        begin, derived, size = segments[s, SEGMENT_START], segments[s, SEGMENT_DERIVED], segments[s, SEGMENT_SIZE]
        w = borrow(data)[derived : derived + size]
        v = borrow(data)[offset + begin : offset + begin + size]
        for run in range(segments[s, SEGMENT_OUTER] * count):
            write_slice(w, v, run * inner, (run + 1) * inner, slices[first + run % count, SLICE_FACTOR])
