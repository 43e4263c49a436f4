"""Pass 1 on a GPU: the sums of `nbopt.kernels.cpu.reduce`, a warp for each block of 4096 elements."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np

from nbopt.kernels.cuda.warp import WARP, first_lane, lane_index, warp_count, warp_index, warp_sum
from nbopt.kernels.fold import is_measured
from nbopt.kernels.intrinsics import element_rows, integers, reals, scratch
from nbopt.kernels.quads import load_quad
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
    """Sum of squares of at most one block, times an exact power of two squared; in the first lane."""
    x = scratch(4, storage)
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    for r in range(4 * lane_index(), size, LANES):
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
    v, e = scratch(4, storage), scratch(4, storage)
    v0, v1, v2, v3 = 0.0, 0.0, 0.0, 0.0
    m0, m1, m2, m3 = 0.0, 0.0, 0.0, 0.0
    d0, d1, d2, d3 = 0.0, 0.0, 0.0, 0.0
    for r in range(4 * lane_index(), size, LANES):
        load_quad(v, TRAINABLE, 0, v_start + r, size - r, tables)
        load_quad(e, DERIVED_GRADIENT, 0, d_start + r, size - r, tables)
        x, y = np.float64(v[0]), np.float64(e[0])
        v0 += x * x
        m0 += x * y
        d0 += y * y
        x, y = np.float64(v[1]), np.float64(e[1])
        v1 += x * x
        m1 += x * y
        d1 += y * y
        x, y = np.float64(v[2]), np.float64(e[2])
        v2 += x * x
        m2 += x * y
        d2 += y * y
        x, y = np.float64(v[3]), np.float64(e[3])
        v3 += x * x
        m3 += x * y
        d3 += y * y
    vv, vd = warp_sum((v0 + v2) + (v1 + v3)), warp_sum((m0 + m2) + (m1 + m3))
    dd = warp_sum((d0 + d2) + (d1 + d3))
    if lane_index() == 0:
        into[0, column] = vv
        into[1, column] = vd
        into[2, column] = dd


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
    v, e = scratch(4, storage), scratch(4, storage)
    columns, row = segments[s, SEGMENT_WIDTH], first * ROW_BLOCK
    rows, out = min(ROW_BLOCK, segments[s, SEGMENT_OUTER] - row), segments[s, SEGMENT_TILE] + first * columns
    for c in range(start + lane_index(), start + size, WARP):
        at = segments[s, SEGMENT_START] + row * columns + c
        derived = segments[s, SEGMENT_DERIVED] + row * columns + c
        vv, vd, dd = 0.0, 0.0, 0.0
        for r in range(0, rows, 4):
            load_column(v, TRAINABLE, at + r * columns, columns, rows - r, tables)
            load_column(e, DERIVED_GRADIENT, derived + r * columns, columns, rows - r, tables)
            a, b, p, q = np.float64(v[0]), np.float64(v[1]), np.float64(v[2]), np.float64(v[3])
            f, g, h, i = np.float64(e[0]), np.float64(e[1]), np.float64(e[2]), np.float64(e[3])
            vv += (a * a + p * p) + (b * b + q * q)
            vd += (a * f + p * h) + (b * g + q * i)
            dd += (f * f + h * h) + (g * g + i * i)
        tiles[0, out + c] = vv
        tiles[1, out + c] = vd
        tiles[2, out + c] = dd


def load_column(into, table, at, columns, left, tables):
    """Read at most four elements of a column, those that are `left`; the others are 0."""
    values = element_rows(tables, table, storage)
    for j in range(4):
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
