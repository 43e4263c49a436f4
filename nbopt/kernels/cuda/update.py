"""Pass 2 and 3 on a GPU: the rule over every element, a warp for each chunk, and the recomposition of w."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np

from nbopt.kernels.cuda.warp import (
    WARP,
    any_thread,
    first_lane,
    lane_index,
    warp_barrier,
    warp_count,
    warp_index,
    warp_sum,
)
from nbopt.kernels.intrinsics import element_rows, integers, reals, scratch
from nbopt.kernels.normed import (
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
from nbopt.kernels.quads import direction_grad, load_column, load_quad, store_column, store_quad
from nbopt.kernels.scalars import clamp, lasso, recomposed, ridge, scaled, storage
from nbopt.kernels.slices import fold_columns_team
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
    LANES,
    ROW_BLOCK,
    SEGMENT_DERIVED,
    SEGMENT_FIRST_SLICE,
    SEGMENT_INNER,
    SEGMENT_OUTER,
    SEGMENT_PARTS,
    SEGMENT_SLICES,
    SEGMENT_START,
    SEGMENT_TILE,
    SEGMENT_WIDTH,
    SEGMENTS,
    SLICE_FACTOR,
    SLICE_POWER,
    SLICE_POWER_D,
    SLICE_POWER_V,
    SLICE_SQUARE,
    SLICES,
    SPAN_PIECE,
    SPAN_PLAIN,
    SPAN_ROWS,
    TILES,
    TRAINABLE,
)

NORMED = True


def scratch_rows():
    """Room for a quad of each accumulator, a tuple. Replaced at binding by the rule's own."""


def load_rows(rows, at, left, tables):
    """Read a quad of each accumulator. Replaced at binding by the rule's own."""


def store_rows(rows, at, left, tables):
    """Write a quad of each accumulator. Replaced at binding by the rule's own."""


def load_columns(rows, at, step, left, tables):
    """Read four elements of each accumulator, `step` apart. Replaced at binding by the rule's own."""


def store_columns(rows, at, step, left, tables):
    """Write four elements of each accumulator, `step` apart. Replaced at binding by the rule's own."""


def update_run(start, size, s, tables):
    """Move a run of elements of a plain parameter."""
    coefficients = reals(tables, COEFFICIENTS)
    param, raw, rows = scratch(4, storage), scratch(4, storage), scratch_rows()
    fixed = constants(tables, s)
    l1, l2 = storage(coefficients[s, COEFFICIENT_L1]), storage(coefficients[s, COEFFICIENT_L2])
    low, high = storage(coefficients[s, COEFFICIENT_LOW]), storage(coefficients[s, COEFFICIENT_HIGH])
    wide, scale = coefficients[s, COEFFICIENT_FACTOR], coefficients[s, COEFFICIENT_SCALE]
    plain, factor = coefficients[s, COEFFICIENT_GENERAL] == 0.0, storage(wide)
    for r in range(4 * lane_index(), size, LANES):
        at, left = start + r, size - r
        load_quad(param, TRAINABLE, 0, at, left, tables)
        load_quad(raw, GRADIENT, 0, at, left, tables)
        load_rows(rows, at, left, tables)
        for j in range(4):
            if j < left:
                if plain:
                    grad = ridge(scaled(factor, raw[j]), param[j], l2)
                else:
                    value = clamp(storage(scaled(wide, np.float64(raw[j]) * scale)), low, high)
                    grad = lasso(ridge(value, param[j], l2), param[j], l1)
                advance(j, param, rows, grad, fixed)
        store_quad(param, TRAINABLE, 0, at, left, tables)
        store_rows(rows, at, left, tables)


def direction_constants(k, s, tables):
    """What `direction_grad` takes of slice `k` of segment `s`, a v.

    It is read ahead of a loop, whose stores would have it read again for each quad.
    """
    coefficients, slices = reals(tables, COEFFICIENTS), reals(tables, SLICES)
    alpha, beta = scalars_of(k, s, tables)
    fast, power_v, power_d = (
        is_fast(alpha, beta, k, s, tables),
        slices[SLICE_POWER_V, k],
        slices[SLICE_POWER_D, k],
    )
    low, high = storage(coefficients[s, COEFFICIENT_LOW]), storage(coefficients[s, COEFFICIENT_HIGH])
    l1, l2 = storage(coefficients[s, COEFFICIENT_L1]), storage(coefficients[s, COEFFICIENT_L2])
    return fast, storage(alpha), storage(beta), alpha, beta, power_v, power_d, low, high, l1, l2


def advance_quad(v, direction, rows, left, slice_fixed, fixed):
    """Apply the rule to the elements of a quad of a v, those that are `left`."""
    fast, near, far, alpha, beta, power_v, power_d, low, high, l1, l2 = slice_fixed
    for j in range(4):
        if j < left:
            grad = direction_grad(
                fast, near, far, alpha, beta, power_v, power_d, direction[j], v[j], low, high, l1, l2
            )
            advance(j, v, rows, grad, fixed)


def update_stretch(begin, derived, size, s, k, tables):
    """Move at most a block of slice `k` of a v; return the sum of its new squares, in the first lane."""
    v, direction, rows = scratch(4, storage), scratch(4, storage), scratch_rows()
    fixed, slice_fixed = constants(tables, s), direction_constants(k, s, tables)
    active = reals(tables, COEFFICIENTS)[s, COEFFICIENT_ACTIVE] != 0.0
    v0, v1, v2, v3 = 0.0, 0.0, 0.0, 0.0
    for r in range(4 * lane_index(), size, LANES):
        at, left = begin + r, size - r
        load_quad(v, TRAINABLE, 0, at, left, tables)
        if active:
            load_quad(direction, DERIVED_GRADIENT, 0, derived + r, left, tables)
            load_rows(rows, at, left, tables)
            advance_quad(v, direction, rows, left, slice_fixed, fixed)
            store_quad(v, TRAINABLE, 0, at, left, tables)
            store_rows(rows, at, left, tables)
        a, b, c, d = np.float64(v[0]), np.float64(v[1]), np.float64(v[2]), np.float64(v[3])
        v0 += a * a
        v1 += b * b
        v2 += c * c
        v3 += d * d
    total = warp_sum((v0 + v2) + (v1 + v3))
    warp_barrier()
    return total


def compose_stretch(begin, derived, size, factor, power, tables):
    """w = factor (power v) of at most a block of a slice."""
    v, fast, rounded = scratch(4, storage), is_composed_fast(factor, power), storage(factor)
    for r in range(4 * lane_index(), size, LANES):
        load_quad(v, TRAINABLE, 0, begin + r, size - r, tables)
        for j in range(4):
            if fast:
                v[j] = recomposed(rounded, v[j])
            else:
                v[j] = storage(recomposed(factor, np.float64(v[j]) * power))
        store_quad(v, DERIVED, 0, derived + r, size - r, tables)


def update_rows(first, count, s, tables):
    """Move whole contiguous slices of a v and their g, and recompose w while v is in cache."""
    segments, slices = integers(tables, SEGMENTS), reals(tables, SLICES)
    inner = segments[s, SEGMENT_INNER]
    for k in range(first, first + count):
        at = (k - segments[s, SEGMENT_FIRST_SLICE]) * inner
        begin, derived = segments[s, SEGMENT_START] + at, segments[s, SEGMENT_DERIVED] + at
        square, factor, power = update_stretch(begin, derived, inner, s, k, tables), 0.0, 0.0
        if lane_index() == 0:
            slices[SLICE_SQUARE, k] = square
            update_magnitudes(k, k + 1, s, tables)
            compose_factors(k, k + 1, s, tables)
            factor, power = slices[SLICE_FACTOR, k], slices[SLICE_POWER, k]
        factor, power = first_lane(factor), first_lane(power)
        compose_stretch(begin, derived, inner, factor, power, tables)


def update_tile(first, start, size, s, tables):
    """Move a tile of a v whose slices are columns, a lane for each, and sum its new squares."""
    segments, tiles = integers(tables, SEGMENTS), reals(tables, TILES)
    v, direction, rows = scratch(4, storage), scratch(4, storage), scratch_rows()
    fixed, active = constants(tables, s), reals(tables, COEFFICIENTS)[s, COEFFICIENT_ACTIVE] != 0.0
    columns, row = segments[s, SEGMENT_WIDTH], first * ROW_BLOCK
    count, out = min(ROW_BLOCK, segments[s, SEGMENT_OUTER] - row), segments[s, SEGMENT_TILE] + first * columns
    for c in range(start + lane_index(), start + size, WARP):
        slice_fixed, total = direction_constants(slice_at(c, s, tables), s, tables), 0.0
        for r in range(0, count, 4):
            at, left = segments[s, SEGMENT_START] + (row + r) * columns + c, count - r
            load_column(v, TRAINABLE, 0, at, columns, left, tables)
            if active:
                derived = segments[s, SEGMENT_DERIVED] + (row + r) * columns + c
                load_column(direction, DERIVED_GRADIENT, 0, derived, columns, left, tables)
                load_columns(rows, at, columns, left, tables)
                advance_quad(v, direction, rows, left, slice_fixed, fixed)
                store_column(v, TRAINABLE, 0, at, columns, left, tables)
                store_columns(rows, at, columns, left, tables)
            # See nbopt.kernels.cpu.reduce.add_squares; what is left out adds zeros.
            e, f, g, h = np.float64(v[0]), np.float64(v[1]), np.float64(v[2]), np.float64(v[3])
            total += (e * e + g * g) + (f * f + h * h)
        tiles[0, out + c] = total


def compose_tile(first, start, size, s, tables):
    """Write w of a tile, a lane for each column."""
    segments, slices = integers(tables, SEGMENTS), reals(tables, SLICES)
    trainable = element_rows(tables, TRAINABLE, storage)
    derived = element_rows(tables, DERIVED, storage)
    columns, row = segments[s, SEGMENT_WIDTH], first * ROW_BLOCK
    count = min(ROW_BLOCK, segments[s, SEGMENT_OUTER] - row)
    for c in range(start + lane_index(), start + size, WARP):
        k = slice_at(c, s, tables)
        factor, power = slices[SLICE_FACTOR, k], slices[SLICE_POWER, k]
        fast, rounded = is_composed_fast(factor, power), storage(factor)
        for r in range(row, row + count):
            v = trainable[0, segments[s, SEGMENT_START] + r * columns + c]
            w = recomposed(rounded, v) if fast else storage(recomposed(factor, np.float64(v) * power))
            derived[0, segments[s, SEGMENT_DERIVED] + r * columns + c] = w


def update_chunks(tables):
    """Pass 2 over every chunk, a warp for each; of a late chunk, all but w."""
    chunks, segments = integers(tables, CHUNKS), integers(tables, SEGMENTS)
    for c in range(warp_index(), chunks.shape[0] - 1, warp_count()):
        s, span = chunks[c, CHUNK_SEGMENT], chunks[c, CHUNK_SPAN]
        start, size, first = chunks[c, CHUNK_START], chunks[c, CHUNK_SIZE], chunks[c, CHUNK_FIRST]
        if not NORMED or span == SPAN_PLAIN:
            if reals(tables, COEFFICIENTS)[s, COEFFICIENT_ACTIVE] != 0.0:
                update_run(start, size, s, tables)
        elif is_normed_active(s, tables):
            if span == SPAN_ROWS:
                update_rows(first, size, s, tables)
            elif span == SPAN_PIECE:
                begin, derived = segments[s, SEGMENT_START] + start, segments[s, SEGMENT_DERIVED] + start
                k = slice_at(start, s, tables)
                square = update_stretch(begin, derived, size, s, k, tables)
                if lane_index() == 0:
                    tiles = reals(tables, TILES)
                    tiles[0, first] = square
            else:
                update_tile(first, start, size, s, tables)


def fold_squares(thread, threads, tables):
    """Move the g, and form the scalars of w, of every v whose chunks are late; by a team.

    One v shares nothing with another, so that no thread waits between them.
    """
    count = integers(tables, SEGMENTS).shape[0]
    for begin in range(0, count, threads):
        if any_thread(begin + thread < count and is_late(begin + thread, tables)):
            for s in range(begin, min(begin + threads, count)):
                if is_late(s, tables):
                    fold_slice_squares(s, thread, threads, tables)


def is_late(s, tables):
    """Whether segment `s` is a v that moves and whose chunks are late."""
    return integers(tables, SEGMENTS)[s, SEGMENT_PARTS] > 0 and is_normed_active(s, tables)


def fold_slice_squares(s, thread, threads, tables):
    """The same of one v; a thread goes on with the slices whose sums it finished, or waited for."""
    segments, slices, tiles = integers(tables, SEGMENTS), reals(tables, SLICES), reals(tables, TILES)
    count, width, tile = segments[s, SEGMENT_SLICES], segments[s, SEGMENT_WIDTH], segments[s, SEGMENT_TILE]
    inner = width // count
    fold_columns_team(1, tile, width, inner, segments[s, SEGMENT_PARTS], tiles, thread, threads)
    for j in range(thread, count, threads):
        k = segments[s, SEGMENT_FIRST_SLICE] + j
        slices[SLICE_SQUARE, k] = tiles[0, tile + j * inner]
        update_magnitudes(k, k + 1, s, tables)
        compose_factors(k, k + 1, s, tables)


def compose_chunks(tables):
    """Pass 3 over the late chunks, a warp for each."""
    chunks, segments = integers(tables, CHUNKS), integers(tables, SEGMENTS)
    slices = reals(tables, SLICES)
    for c in range(warp_index(), chunks[chunks.shape[0] - 1, CHUNK_FIRST], warp_count()):
        s, start, size = chunks[c, CHUNK_SEGMENT], chunks[c, CHUNK_START], chunks[c, CHUNK_SIZE]
        if is_normed_active(s, tables):
            if chunks[c, CHUNK_SPAN] == SPAN_PIECE:
                k = slice_at(start, s, tables)
                begin, derived = segments[s, SEGMENT_START] + start, segments[s, SEGMENT_DERIVED] + start
                factor, power = slices[SLICE_FACTOR, k], slices[SLICE_POWER, k]
                compose_stretch(begin, derived, size, factor, power, tables)
            else:
                compose_tile(chunks[c, CHUNK_FIRST], start, size, s, tables)
