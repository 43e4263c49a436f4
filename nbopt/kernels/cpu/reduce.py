"""Pass 1 on the CPU: sums of products in one fixed shape (contract N1 to N3).

Lane `i % 128` of a block of 4096 takes element i, in float64; lanes fold inside each quad first, then by
halves; blocks fold by a pairwise tree. Elements count from the first of their segment or slice, so no bit
depends on packing or threads.
"""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np

from nbopt.kernels.fold import LEVELS, close_subtrees, is_measured
from nbopt.kernels.intrinsics import elements, integers, reals, stack
from nbopt.kernels.scalars import DOWN, UP, is_safe, power_for, storage
from nbopt.kernels.tables import (
    BLOCK,
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
    SEGMENT_SLICES,
    SEGMENT_START,
    SEGMENT_TILE,
    SEGMENTS,
    SLICE_DD,
    SLICE_VD,
    SLICE_VV,
    SLICES,
    SPAN_PLAIN,
    SPAN_ROWS,
    TILE_WIDTH,
    TILES,
    TRAINABLE,
)

NORMED = True
QUADS = LANES // 4


def fold_lanes(lanes):
    """Sum of the lanes: inside each quad, then by halves."""
    for q in range(QUADS):
        lanes[q] = (lanes[4 * q] + lanes[4 * q + 2]) + (lanes[4 * q + 1] + lanes[4 * q + 3])
    half = QUADS // 2
    while half > 0:
        for q in range(half):
            lanes[q] += lanes[q + half]
        half //= 2
    return lanes[0]


def square_sum(x, start, size):
    """Sum of squares of at most one block."""
    lanes = stack(LANES)
    for lane in range(LANES):
        lanes[lane] = 0.0
    block = x[start : start + size]
    whole = size // LANES
    for r in range(whole):
        row = block[r * LANES : (r + 1) * LANES]
        for lane in range(LANES):
            value = np.float64(row[lane])
            lanes[lane] += value * value
    rest = block[whole * LANES :]
    for lane in range(rest.size):
        value = np.float64(rest[lane])
        lanes[lane] += value * value
    return fold_lanes(lanes)


def scaled_square_sum(x, start, size, scale):
    """The same over x times an exact power of two."""
    lanes = stack(LANES)
    for lane in range(LANES):
        lanes[lane] = 0.0
    block = x[start : start + size]
    for i in range(size):
        value = np.float64(block[i]) * scale
        lanes[i % LANES] += value * value
    return fold_lanes(lanes)


def any_nonzero(x, start, size):
    """Whether an element differs from zero."""
    block = x[start : start + size]
    for i in range(size):
        if block[i] != 0.0:
            return True
    return False


def bins_of_single(x, start, size):
    """Sum of squares of a float32 block, by exponent bin: always the middle one."""
    return 0.0, square_sum(x, start, size), 0.0


def bins_of_double(x, start, size):
    """Sum of squares of a float64 block, by exponent bin; formed again where it left the safe range."""
    middle = square_sum(x, start, size)
    if is_safe(middle):
        return 0.0, middle, 0.0
    if power_for(middle) == UP:
        if any_nonzero(x, start, size):
            return scaled_square_sum(x, start, size, UP), 0.0, 0.0
        return 0.0, 0.0, 0.0
    return 0.0, 0.0, scaled_square_sum(x, start, size, DOWN)


bin_sums = bins_of_single  # binding chooses by dtype


def product_sums(v, v_start, d, d_start, size):
    """Sums of v*v, v*d, d*d of at most one block."""
    vv, vd, dd = stack(LANES), stack(LANES), stack(LANES)
    for lane in range(LANES):
        vv[lane] = 0.0
        vd[lane] = 0.0
        dd[lane] = 0.0
    first = v[v_start : v_start + size]
    second = d[d_start : d_start + size]
    for r in range((size + LANES - 1) // LANES):
        one = first[r * LANES : (r + 1) * LANES]
        two = second[r * LANES : (r + 1) * LANES]
        for lane in range(one.size):
            a = np.float64(one[lane])
            b = np.float64(two[lane])
            vv[lane] += a * a
            vd[lane] += a * b
            dd[lane] += b * b
    return fold_lanes(vv), fold_lanes(vd), fold_lanes(dd)


def slice_products(v, v_start, d, d_start, size):
    """Sums of v*v, v*d, d*d of a contiguous slice of any size: blocks in a pairwise tree."""
    if size <= BLOCK:
        return product_sums(v, v_start, d, d_start, size)
    vv, vd, dd = stack(LEVELS), stack(LEVELS), stack(LEVELS)
    depth = 0
    for at in range(0, size, BLOCK):
        one, two, three = product_sums(v, v_start + at, d, d_start + at, min(BLOCK, size - at))
        vv[depth] = one
        vd[depth] = two
        dd[depth] = three
        blocks, last = at // BLOCK + 1, at + BLOCK >= size
        close_subtrees(vv, depth + 1, blocks, last)
        close_subtrees(vd, depth + 1, blocks, last)
        depth = close_subtrees(dd, depth + 1, blocks, last)
    return vv[0], vd[0], dd[0]


def slice_squares(v, start, size):
    """Sum of v*v of a contiguous slice of any size, with the bits of `slice_products`."""
    if size <= BLOCK:
        return square_sum(v, start, size)
    vv = stack(LEVELS)
    depth = 0
    for at in range(0, size, BLOCK):
        vv[depth] = square_sum(v, start + at, min(BLOCK, size - at))
        depth = close_subtrees(vv, depth + 1, at // BLOCK + 1, at + BLOCK >= size)
    return vv[0]


def tile_products(v, v_start, d, d_start, columns, rows, width, tiles, out):
    """Sums of v*v, v*d, d*d down the columns of a tile, into `tiles`; four rows, (r0+r2) + (r1+r3), first."""
    vv, vd, dd = stack(TILE_WIDTH), stack(TILE_WIDTH), stack(TILE_WIDTH)
    for c in range(width):
        vv[c] = 0.0
        vd[c] = 0.0
        dd[c] = 0.0
    for r in range(0, rows, 4):
        for c in range(width):
            vv4, vd4, dd4 = 0.0, 0.0, 0.0
            for pair in range(0, 2):
                i = (r + pair) * columns + c
                near = r + pair < rows
                far = r + pair + 2 < rows
                a = np.float64(v[v_start + i]) if near else 0.0
                b = np.float64(d[d_start + i]) if near else 0.0
                p = np.float64(v[v_start + i + 2 * columns]) if far else 0.0
                q = np.float64(d[d_start + i + 2 * columns]) if far else 0.0
                vv4 += a * a + p * p
                vd4 += a * b + p * q
                dd4 += b * b + q * q
            vv[c] += vv4
            vd[c] += vd4
            dd[c] += dd4
    for c in range(width):
        tiles[0, out + c] = vv[c]
        tiles[1, out + c] = vd[c]
        tiles[2, out + c] = dd[c]


def reduce_chunk(c, tables):
    """Partial sums of one chunk, to the place that the tables give it."""
    chunks, segments = integers(tables, CHUNKS), integers(tables, SEGMENTS)
    s = chunks[c, CHUNK_SEGMENT]
    start, size, first = chunks[c, CHUNK_START], chunks[c, CHUNK_SIZE], chunks[c, CHUNK_FIRST]
    if not NORMED or chunks[c, CHUNK_SPAN] == SPAN_PLAIN:
        partials = reals(tables, PARTIALS)
        low, middle, high = bin_sums(elements(tables, GRADIENT, storage), start, size)
        partials[0, first] = low
        partials[1, first] = middle
        partials[2, first] = high
        return
    trainable = elements(tables, TRAINABLE, storage)
    direction = elements(tables, DERIVED_GRADIENT, storage)
    inner, derived, begin = (
        segments[s, SEGMENT_INNER],
        segments[s, SEGMENT_DERIVED],
        segments[s, SEGMENT_START],
    )
    if chunks[c, CHUNK_SPAN] == SPAN_ROWS:
        slices = reals(tables, SLICES)
        for k in range(first, first + size):
            at = (k - segments[s, SEGMENT_FIRST_SLICE]) * inner
            vv, vd, dd = slice_products(trainable, begin + at, direction, derived + at, inner)
            slices[k, SLICE_VV] = vv
            slices[k, SLICE_VD] = vd
            slices[k, SLICE_DD] = dd
    else:
        columns = segments[s, SEGMENT_SLICES] * inner
        row = first * ROW_BLOCK
        rows = min(ROW_BLOCK, segments[s, SEGMENT_OUTER] - row)
        at = row * columns + start
        out = segments[s, SEGMENT_TILE] + first * columns + start
        tile_products(
            trainable,
            begin + at,
            direction,
            derived + at,
            columns,
            rows,
            size,
            reals(tables, TILES),
            out,
        )


def reduce_range(begin, end, tables):
    """Pass 1 over a run of chunks, for one thread."""
    for c in range(begin, end):
        if is_measured(integers(tables, CHUNKS)[c, CHUNK_SEGMENT], tables):
            reduce_chunk(c, tables)
