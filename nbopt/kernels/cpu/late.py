"""Late chunks of weight norm: pieces of long slices, and tiles whose slices are columns.

No one chunk sees a whole norm, so pass 2 leaves sums of the new squares, and w is written by a pass of its
own. A tile is walked row by row, with the scalars of its columns side by side.
"""

# mypy: ignore-errors

from __future__ import annotations

from nbopt.kernels.cpu.reduce import add_squares, clear_sums, square_sum
from nbopt.kernels.cpu.update import compose_run, update_direction, update_slice, write_slice
from nbopt.kernels.intrinsics import elements, integers, reals, scratch, stack
from nbopt.kernels.normed import (
    accumulator_rows,
    advance,
    compose_factors,
    constants,
    is_composed_fast,
    is_fast,
    is_normed_active,
    scalars_of,
    slice_at,
    update_magnitudes,
)
from nbopt.kernels.scalars import recomposed, ridge, storage, tangent
from nbopt.kernels.slices import fold_columns
from nbopt.kernels.tables import (
    CHUNK_FIRST,
    CHUNK_SEGMENT,
    CHUNK_SIZE,
    CHUNK_SPAN,
    CHUNK_START,
    CHUNKS,
    COEFFICIENT_ACTIVE,
    COEFFICIENT_L2,
    COEFFICIENTS,
    DERIVED,
    DERIVED_GRADIENT,
    ROW_BLOCK,
    SEGMENT_DERIVED,
    SEGMENT_FIRST_SLICE,
    SEGMENT_INNER,
    SEGMENT_OUTER,
    SEGMENT_PARTS,
    SEGMENT_SIZE,
    SEGMENT_SLICES,
    SEGMENT_START,
    SEGMENT_TILE,
    SEGMENT_WIDTH,
    SEGMENTS,
    SLICE_FACTOR,
    SLICE_POWER,
    SLICE_SQUARE,
    SLICES,
    SPAN_PIECE,
    TILE_WIDTH,
    TILES,
    TRAINABLE,
)


def update_piece(start, size, column, s, tables):
    """Move a piece of one slice, and sum its new squares."""
    segments, coefficients = integers(tables, SEGMENTS), reals(tables, COEFFICIENTS)
    begin, derived = segments[s, SEGMENT_START] + start, segments[s, SEGMENT_DERIVED] + start
    v = elements(tables, TRAINABLE, storage)[begin : begin + size]
    if coefficients[s, COEFFICIENT_ACTIVE] != 0.0:
        k = slice_at(start, s, tables)
        alpha, beta = scalars_of(k, s, tables)
        if is_fast(alpha, beta, k, s, tables):
            l2, fixed = storage(coefficients[s, COEFFICIENT_L2]), constants(tables, s)
            update_slice(storage(alpha), storage(beta), l2, fixed, begin, derived, size, tables)
        else:
            direction = elements(tables, DERIVED_GRADIENT, storage)[derived : derived + size]
            rows = accumulator_rows(tables, begin, begin + size)
            update_direction(v, direction, rows, 0, size, 1, s, k, tables)
    reals(tables, TILES)[0, column] = square_sum(v, 0, size)


def tangent_columns(near, far, start, size, s, tables):
    """Write the scalars of dL/dv for each column of a tile; return whether all are in range."""
    inner, k = integers(tables, SEGMENTS)[s, SEGMENT_INNER], slice_at(start, s, tables)
    left, fast = inner - start % inner, True
    for c in range(size):
        alpha, beta = scalars_of(k, s, tables)
        fast = fast and is_fast(alpha, beta, k, s, tables)
        near[c], far[c] = storage(alpha), storage(beta)
        left -= 1
        if left == 0:
            k, left = k + 1, inner
    return fast


def update_row(begin, derived, size, near, far, l2, fixed, tables):
    """Move a row of a tile."""
    v = elements(tables, TRAINABLE, storage)[begin : begin + size]
    direction = elements(tables, DERIVED_GRADIENT, storage)[derived : derived + size]
    rows = accumulator_rows(tables, begin, begin + size)
    for c in range(size):
        advance(c, v, rows, ridge(tangent(near[c], far[c], direction[c], v[c]), v[c], l2), fixed)


def update_columns(at, start, size, count, s, tables):
    """Move a tile column by column: some have scalars out of range."""
    segments = integers(tables, SEGMENTS)
    begin, derived = segments[s, SEGMENT_START], segments[s, SEGMENT_DERIVED]
    end, columns = segments[s, SEGMENT_SIZE], segments[s, SEGMENT_WIDTH]
    v = elements(tables, TRAINABLE, storage)[begin : begin + end]
    direction = elements(tables, DERIVED_GRADIENT, storage)[derived : derived + end]
    rows = accumulator_rows(tables, begin, begin + end)
    for c in range(size):
        k = slice_at(start + c, s, tables)
        update_direction(v, direction, rows, at + c, count, columns, s, k, tables)


def update_tile(first, start, size, s, tables):
    """Move a tile of a v whose slices are columns, and sum its new squares."""
    segments, coefficients = integers(tables, SEGMENTS), reals(tables, COEFFICIENTS)
    columns, row = segments[s, SEGMENT_WIDTH], first * ROW_BLOCK
    count, at = min(ROW_BLOCK, segments[s, SEGMENT_OUTER] - row), row * columns + start
    begin, derived = segments[s, SEGMENT_START] + at, segments[s, SEGMENT_DERIVED] + at
    near, far = scratch(TILE_WIDTH, storage), scratch(TILE_WIDTH, storage)
    fast = False
    if coefficients[s, COEFFICIENT_ACTIVE] != 0.0:
        fast = tangent_columns(near, far, start, size, s, tables)
        if not fast:
            update_columns(at, start, size, count, s, tables)
    l2, fixed = storage(coefficients[s, COEFFICIENT_L2]), constants(tables, s)
    v, sums = elements(tables, TRAINABLE, storage), stack(TILE_WIDTH)
    clear_sums(sums, size)
    for r in range(0, count, 4):
        if fast:
            for q in range(r, min(r + 4, count)):
                update_row(begin + q * columns, derived + q * columns, size, near, far, l2, fixed, tables)
        add_squares(sums, v, begin + r * columns, columns, count - r, size)
    tiles, out = reals(tables, TILES), segments[s, SEGMENT_TILE] + first * columns + start
    for c in range(size):
        tiles[0, out + c] = sums[c]


def fold_squares(tables):
    """Move the g, and form the scalars of w, of every v whose chunks are late."""
    segments, slices, tiles = integers(tables, SEGMENTS), reals(tables, SLICES), reals(tables, TILES)
    for s in range(segments.shape[0]):
        if segments[s, SEGMENT_PARTS] == 0 or not is_normed_active(s, tables):
            continue
        count, width, tile = (
            segments[s, SEGMENT_SLICES],
            segments[s, SEGMENT_WIDTH],
            segments[s, SEGMENT_TILE],
        )
        inner = width // count
        fold_columns(1, tile, width, inner, segments[s, SEGMENT_PARTS], tiles)
        first = segments[s, SEGMENT_FIRST_SLICE]
        for j in range(count):
            slices[SLICE_SQUARE, first + j] = tiles[0, tile + j * inner]
        update_magnitudes(first, first + count, s, tables)
        compose_factors(first, first + count, s, tables)


def compose_piece(start, size, s, tables):
    """Write w of a piece of one slice."""
    segments, slices = integers(tables, SEGMENTS), reals(tables, SLICES)
    begin, derived = segments[s, SEGMENT_START] + start, segments[s, SEGMENT_DERIVED] + start
    v = elements(tables, TRAINABLE, storage)[begin : begin + size]
    w = elements(tables, DERIVED, storage)[derived : derived + size]
    k = slice_at(start, s, tables)
    factor, power = slices[SLICE_FACTOR, k], slices[SLICE_POWER, k]
    if is_composed_fast(factor, power):
        compose_run(w, v, storage(factor))
    else:
        write_slice(w, v, 0, size, 1, factor, power)


def factor_columns(factors, start, size, s, tables):
    """Write the scalar of w for each column of a tile; return whether all are in range."""
    inner, k = integers(tables, SEGMENTS)[s, SEGMENT_INNER], slice_at(start, s, tables)
    slices = reals(tables, SLICES)
    left, fast = inner - start % inner, True
    for c in range(size):
        factor, power = slices[SLICE_FACTOR, k], slices[SLICE_POWER, k]
        fast = fast and is_composed_fast(factor, power)
        factors[c] = storage(factor)
        left -= 1
        if left == 0:
            k, left = k + 1, inner
    return fast


def compose_row(w, v, factors):
    """Write w of a row of a tile."""
    for c in range(w.size):
        w[c] = recomposed(factors[c], v[c])


def compose_tile(first, start, size, s, tables):
    """Write w of a tile."""
    segments, slices = integers(tables, SEGMENTS), reals(tables, SLICES)
    columns, row = segments[s, SEGMENT_WIDTH], first * ROW_BLOCK
    count, at = min(ROW_BLOCK, segments[s, SEGMENT_OUTER] - row), row * columns + start
    begin, derived = segments[s, SEGMENT_START] + at, segments[s, SEGMENT_DERIVED] + at
    v, w = elements(tables, TRAINABLE, storage), elements(tables, DERIVED, storage)
    factors = scratch(TILE_WIDTH, storage)
    if factor_columns(factors, start, size, s, tables):
        for r in range(count):
            at = r * columns
            compose_row(w[derived + at : derived + at + size], v[begin + at : begin + at + size], factors)
        return
    for c in range(size):
        k = slice_at(start + c, s, tables)
        factor, power = slices[SLICE_FACTOR, k], slices[SLICE_POWER, k]
        end = (count - 1) * columns + c + 1
        write_slice(w[derived : derived + end], v[begin : begin + end], c, count, columns, factor, power)


def compose_range(begin, end, tables):
    """Pass 3 over a run of late chunks, for one thread."""
    chunks = integers(tables, CHUNKS)
    for c in range(begin, end):
        s, start, size = chunks[c, CHUNK_SEGMENT], chunks[c, CHUNK_START], chunks[c, CHUNK_SIZE]
        if not is_normed_active(s, tables):
            continue
        if chunks[c, CHUNK_SPAN] == SPAN_PIECE:
            compose_piece(start, size, s, tables)
        else:
            compose_tile(chunks[c, CHUNK_FIRST], start, size, s, tables)
