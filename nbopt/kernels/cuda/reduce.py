"""Pass 1 on a GPU: the sums of `nbopt.kernels.cpu.reduce`, a warp for each block of 4096 elements."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np

from nbopt.kernels.cuda.warp import WARP, first_lane, lane_index, warp_count, warp_index, warp_sum
from nbopt.kernels.fold import is_measured
from nbopt.kernels.intrinsics import element_rows, integers, reals, scratch, stack
from nbopt.kernels.quads import load_ahead, load_quad
from nbopt.kernels.scalars import BIN_FROM, BIN_TO, UP, is_safe, power_for, storage
from nbopt.kernels.slices import form_slices
from nbopt.kernels.tables import (
    CHUNK_FIRST,
    CHUNK_SEGMENT,
    CHUNK_SIZE,
    CHUNK_SPAN,
    CHUNK_START,
    CHUNKS,
    DERIVED_GRADIENT,
    GRADIENT,
    LANES,
    PARTIALS,
    ROW_BLOCK,
    SEGMENT_DERIVED,
    SEGMENT_FIRST_SLICE,
    SEGMENT_INNER,
    SEGMENT_OUTER,
    SEGMENT_START,
    SEGMENT_TILE,
    SEGMENT_WIDTH,
    SEGMENTS,
    SLICES,
    SPAN_PIECE,
    SPAN_PLAIN,
    SPAN_ROWS,
    TILES,
    TRAINABLE,
)

NORMED = True


def square_sum(table, start, size, scale, tables):
    """Sum of squares of at most one block, times an exact power of two squared; in the first lane.

    `start` is a multiple of 4. As many loads are under way as keep the memory busy.
    """
    x, whole = scratch(32, storage), size // (8 * LANES) * (8 * LANES)
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    for r in range(4 * lane_index(), whole, 8 * LANES):
        load_ahead(x, 8, table, start + r, tables)
        for k in range(0, 32, 4):
            p, q = np.float64(x[k]) * scale, np.float64(x[k + 1]) * scale
            s, t = np.float64(x[k + 2]) * scale, np.float64(x[k + 3]) * scale
            a += p * p
            b += q * q
            c += s * s
            d += t * t
    for r in range(whole + 4 * lane_index(), size, LANES):
        load_quad(x, table, 0, start + r, size - r, tables)
        p, q = np.float64(x[0]) * scale, np.float64(x[1]) * scale
        s, t = np.float64(x[2]) * scale, np.float64(x[3]) * scale
        a += p * p
        b += q * q
        c += s * s
        d += t * t
    return warp_sum((a + c) + (b + d))


def reduce_run(start, size, first, tables):
    """Sum of squares of a run of a plain parameter, by exponent bin."""
    low, middle, high = 0.0, square_sum(GRADIENT, start, size, 1.0, tables), 0.0
    if BIN_TO - BIN_FROM > 1:
        middle = first_lane(middle)
        if not is_safe(middle):
            power = power_for(middle)
            again = square_sum(GRADIENT, start, size, power, tables)
            middle = 0.0
            if power == UP:
                low = again
            else:
                high = again
    if lane_index() == 0:
        partials = reals(tables, PARTIALS)
        partials[0, first], partials[1, first], partials[2, first] = low, middle, high


def write_products(v_start, d_start, size, into, column, tables):
    """Sums of v*v, v*d, d*d of at most one block, into three rows of a table."""
    v, e, whole = scratch(16, storage), scratch(16, storage), 0
    sums = stack(12)  # of v*v, then v*d, then d*d, by place in the quad
    for q in range(12):
        sums[q] = 0.0
    if v_start % 4 == 0 and d_start % 4 == 0:
        whole = size // (4 * LANES) * (4 * LANES)
    for r in range(4 * lane_index(), whole, 4 * LANES):
        load_ahead(v, 4, TRAINABLE, v_start + r, tables)
        load_ahead(e, 4, DERIVED_GRADIENT, d_start + r, tables)
        for k in range(0, 16, 4):
            add_products(sums, v, e, k)
    for r in range(whole + 4 * lane_index(), size, LANES):
        load_quad(v, TRAINABLE, 0, v_start + r, size - r, tables)
        load_quad(e, DERIVED_GRADIENT, 0, d_start + r, size - r, tables)
        add_products(sums, v, e, 0)
    vv = warp_sum((sums[0] + sums[2]) + (sums[1] + sums[3]))
    vd = warp_sum((sums[4] + sums[6]) + (sums[5] + sums[7]))
    dd = warp_sum((sums[8] + sums[10]) + (sums[9] + sums[11]))
    if lane_index() == 0:
        into[0, column] = vv
        into[1, column] = vd
        into[2, column] = dd


def add_products(sums, v, e, first):
    """Add the products of a quad."""
    for j in range(4):
        x, y = np.float64(v[first + j]), np.float64(e[first + j])
        sums[j] += x * x
        sums[4 + j] += x * y
        sums[8 + j] += y * y


def reduce_rows(first, count, s, tables):
    """Sums and scalars of whole contiguous slices, each at most one block."""
    segments, slices = integers(tables, SEGMENTS), reals(tables, SLICES)
    inner, begin, derived = (
        segments[s, SEGMENT_INNER],
        segments[s, SEGMENT_START],
        segments[s, SEGMENT_DERIVED],
    )
    for k in range(first, first + count):
        at = (k - segments[s, SEGMENT_FIRST_SLICE]) * inner
        write_products(begin + at, derived + at, inner, slices, k, tables)
        if lane_index() == 0:
            form_slices(k, k + 1, s, 0, 1, tables)


def reduce_tile(first, start, size, s, tables):
    """Sums down the columns of a tile, a lane for each."""
    segments, tiles = integers(tables, SEGMENTS), reals(tables, TILES)
    v, e = scratch(16, storage), scratch(16, storage)
    columns, row = segments[s, SEGMENT_WIDTH], first * ROW_BLOCK
    rows, out = min(ROW_BLOCK, segments[s, SEGMENT_OUTER] - row), segments[s, SEGMENT_TILE] + first * columns
    for c in range(start + lane_index(), start + size, WARP):
        at = segments[s, SEGMENT_START] + row * columns + c
        derived = segments[s, SEGMENT_DERIVED] + row * columns + c
        vv, vd, dd = 0.0, 0.0, 0.0
        for r in range(0, rows, 16):
            load_rows_ahead(v, TRAINABLE, at + r * columns, columns, rows - r, tables)
            load_rows_ahead(e, DERIVED_GRADIENT, derived + r * columns, columns, rows - r, tables)
            for k in range(0, 16, 4):  # what is left out adds zeros
                a, b, p, q = (
                    np.float64(v[k]),
                    np.float64(v[k + 1]),
                    np.float64(v[k + 2]),
                    np.float64(v[k + 3]),
                )
                f, g, h, i = (
                    np.float64(e[k]),
                    np.float64(e[k + 1]),
                    np.float64(e[k + 2]),
                    np.float64(e[k + 3]),
                )
                vv += (a * a + p * p) + (b * b + q * q)
                vd += (a * f + p * h) + (b * g + q * i)
                dd += (f * f + h * h) + (g * g + i * i)
        tiles[0, out + c] = vv
        tiles[1, out + c] = vd
        tiles[2, out + c] = dd


def load_rows_ahead(into, table, at, columns, left, tables):
    """Read at most 16 elements of a column, those that are `left`; the others are 0."""
    values = element_rows(tables, table, storage)
    if left >= 16:
        for j in range(16):
            into[j] = values[0, at + j * columns]
    else:
        for j in range(16):
            into[j] = storage(0.0)
            if j < left:
                into[j] = values[0, at + j * columns]


def reduce_chunks(tables):
    """Pass 1 over every chunk, a warp for each."""
    chunks = integers(tables, CHUNKS)
    for c in range(warp_index(), chunks.shape[0] - 1, warp_count()):
        s, span = chunks[c, CHUNK_SEGMENT], chunks[c, CHUNK_SPAN]
        if is_measured(s, tables):
            start, size, first = chunks[c, CHUNK_START], chunks[c, CHUNK_SIZE], chunks[c, CHUNK_FIRST]
            if not NORMED or span == SPAN_PLAIN:
                reduce_run(start, size, first, tables)
            elif span == SPAN_ROWS:
                reduce_rows(first, size, s, tables)
            elif span == SPAN_PIECE:
                segments = integers(tables, SEGMENTS)
                begin, derived = segments[s, SEGMENT_START] + start, segments[s, SEGMENT_DERIVED] + start
                write_products(begin, derived, size, reals(tables, TILES), first, tables)
            else:
                reduce_tile(first, start, size, s, tables)
