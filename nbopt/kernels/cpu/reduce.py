"""Pass 1 on the CPU: sums of products in one fixed shape (contract N1 to N3).

Lane `i % 128` of a block of 4096 takes element i, in float64; lanes fold inside each quad first, then by
halves; blocks fold by a pairwise tree. Elements count from the first of their segment or slice, so no bit
depends on packing or threads.
"""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np

from nbopt.kernels.intrinsics import elements, integers, reals, stack
from nbopt.kernels.scalars import DOWN, UP, is_safe, power_for, storage
from nbopt.kernels.slices import form_slices
from nbopt.kernels.tables import (
    BLOCK,
    CHUNK_FIRST,
    CHUNK_SEGMENT,
    CHUNK_SIZE,
    CHUNK_SPAN,
    CHUNK_START,
    CHUNKS,
    COEFFICIENT_MEASURED,
    COEFFICIENTS,
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
    SLICE_DD,
    SLICE_VD,
    SLICE_VV,
    SLICES,
    SPAN_PIECE,
    SPAN_PLAIN,
    SPAN_ROWS,
    TILE_WIDTH,
    TILES,
    TRAINABLE,
)
from nbopt.kernels.trees import LEVELS, close_subtrees

NORMED = True
QUADS = LANES // 4
# Elements of an array that stays in cache between steps. There, two rows at a time are 1.3 to 1.6 times as
# fast, for the sums are stored half as often; from memory they are slower, for one stream becomes two.
IN_CACHE = 2**20


def clear_sums(sums, size):
    """Fill with zeros."""
    for i in range(size):
        sums[i] = 0.0


def fold_halves(sums):
    """Sum of the quads, by halves."""
    half = QUADS // 2
    while half > 0:
        for q in range(half):
            sums[q] += sums[q + half]
        half //= 2
    return sums[0]


def fold_quads(lanes, sums):
    """Add the lanes inside each quad."""
    for q in range(QUADS):
        sums[q] = (lanes[4 * q] + lanes[4 * q + 2]) + (lanes[4 * q + 1] + lanes[4 * q + 3])


def fold_lanes(lanes):
    """Sum of the lanes: inside each quad, then by halves."""
    sums = stack(QUADS)
    fold_quads(lanes, sums)
    return fold_halves(sums)


def short_squares(x, sums):
    """Write the squares of at most one element per lane, summed inside each quad, without the lanes."""
    whole = x.size // 4
    clear_sums(sums, QUADS)
    for q in range(whole):
        a, b = np.float64(x[4 * q]), np.float64(x[4 * q + 1])
        e, f = np.float64(x[4 * q + 2]), np.float64(x[4 * q + 3])
        sums[q] = (a * a + e * e) + (b * b + f * f)
    if 4 * whole < x.size:
        a = np.float64(x[4 * whole])
        b = np.float64(x[4 * whole + 1]) if 4 * whole + 1 < x.size else 0.0
        e = np.float64(x[4 * whole + 2]) if 4 * whole + 2 < x.size else 0.0
        sums[whole] = (a * a + e * e) + b * b


def lane_squares(block, sums):
    """Write the squares of at most one block, summed in each lane, then inside each quad."""
    lanes, size = stack(LANES), block.size
    clear_sums(lanes, LANES)
    whole = size // LANES
    for r in range(whole):
        row = block[r * LANES : (r + 1) * LANES]
        for lane in range(LANES):
            a = np.float64(row[lane])
            lanes[lane] += a * a
    rest = block[whole * LANES :]
    for lane in range(rest.size):
        a = np.float64(rest[lane])
        lanes[lane] += a * a
    fold_quads(lanes, sums)


def short_products(x, y):
    """Sums of x*x, x*y, y*y of at most one element per lane, without the lanes."""
    xx, xy, yy, whole = stack(QUADS), stack(QUADS), stack(QUADS), x.size // 4
    clear_sums(xx, QUADS)
    clear_sums(xy, QUADS)
    clear_sums(yy, QUADS)
    for q in range(whole):
        a, b = np.float64(x[4 * q]), np.float64(x[4 * q + 1])
        e, f = np.float64(x[4 * q + 2]), np.float64(x[4 * q + 3])
        g, h = np.float64(y[4 * q]), np.float64(y[4 * q + 1])
        m, n = np.float64(y[4 * q + 2]), np.float64(y[4 * q + 3])
        xx[q] = (a * a + e * e) + (b * b + f * f)
        xy[q] = (a * g + e * m) + (b * h + f * n)
        yy[q] = (g * g + m * m) + (h * h + n * n)
    if 4 * whole < x.size:
        a, g = np.float64(x[4 * whole]), np.float64(y[4 * whole])
        b, h, e, m = 0.0, 0.0, 0.0, 0.0
        if 4 * whole + 1 < x.size:
            b, h = np.float64(x[4 * whole + 1]), np.float64(y[4 * whole + 1])
        if 4 * whole + 2 < x.size:
            e, m = np.float64(x[4 * whole + 2]), np.float64(y[4 * whole + 2])
        xx[whole] = (a * a + e * e) + b * b
        xy[whole] = (a * g + e * m) + b * h
        yy[whole] = (g * g + m * m) + h * h
    # A lane that starts from +0 is never -0.
    return fold_halves(xx), fold_halves(xy) + 0.0, fold_halves(yy)


def square_sum(x, start, size):
    """Sum of squares of at most one block."""
    sums = stack(QUADS)
    if size <= LANES:
        short_squares(x[start : start + size], sums)
    else:
        lane_squares(x[start : start + size], sums)
    return fold_halves(sums)


def scaled_square_sum(x, start, size, scale):
    """The same over x times an exact power of two."""
    lanes = stack(LANES)
    clear_sums(lanes, LANES)
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
    first = v[v_start : v_start + size]
    second = d[d_start : d_start + size]
    vv, vd, dd = stack(LANES), stack(LANES), stack(LANES)
    clear_sums(vv, LANES)
    clear_sums(vd, LANES)
    clear_sums(dd, LANES)
    pairs = size // (2 * LANES) if v.size <= IN_CACHE else 0
    for r in range(pairs):
        one = first[2 * r * LANES : 2 * (r + 1) * LANES]
        two = second[2 * r * LANES : 2 * (r + 1) * LANES]
        for lane in range(LANES):
            a, e = np.float64(one[lane]), np.float64(two[lane])
            b, f = np.float64(one[LANES + lane]), np.float64(two[LANES + lane])
            vv[lane] = (vv[lane] + a * a) + b * b
            vd[lane] = (vd[lane] + a * e) + b * f
            dd[lane] = (dd[lane] + e * e) + f * f
    for r in range(2 * pairs, (size + LANES - 1) // LANES):
        one = first[r * LANES : (r + 1) * LANES]
        two = second[r * LANES : (r + 1) * LANES]
        for lane in range(one.size):
            a, e = np.float64(one[lane]), np.float64(two[lane])
            vv[lane] += a * a
            vd[lane] += a * e
            dd[lane] += e * e
    return fold_lanes(vv), fold_lanes(vd), fold_lanes(dd)


def slice_products(v, v_start, d, d_start, size):
    """Sums of v*v, v*d, d*d of a contiguous slice of any size: blocks in a pairwise tree."""
    if size <= LANES:
        return short_products(v[v_start : v_start + size], d[d_start : d_start + size])
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


def add_squares(sums, v, start, columns, rows, width):
    """Add the squares of four rows, (r0+r2) + (r1+r3), to the sums of their columns; absent rows are 0."""
    if rows >= 4:
        one, two = v[start : start + width], v[start + columns : start + columns + width]
        three = v[start + 2 * columns : start + 2 * columns + width]
        four = v[start + 3 * columns : start + 3 * columns + width]
        for c in range(width):
            a, b = np.float64(one[c]), np.float64(two[c])
            p, q = np.float64(three[c]), np.float64(four[c])
            sums[c] += (a * a + p * p) + (b * b + q * q)
        return
    for c in range(width):
        a = np.float64(v[start + c])
        b = np.float64(v[start + columns + c]) if rows > 1 else 0.0
        p = np.float64(v[start + 2 * columns + c]) if rows > 2 else 0.0
        sums[c] += (a * a + p * p) + b * b


def add_products(vv, vd, dd, v, v_start, d, d_start, columns, rows, width):
    """Add the products of four rows to the sums of their columns, with the bits of `add_squares`."""
    if rows >= 4:
        v1, v2 = v[v_start : v_start + width], v[v_start + columns : v_start + columns + width]
        v3 = v[v_start + 2 * columns : v_start + 2 * columns + width]
        v4 = v[v_start + 3 * columns : v_start + 3 * columns + width]
        d1, d2 = d[d_start : d_start + width], d[d_start + columns : d_start + columns + width]
        d3 = d[d_start + 2 * columns : d_start + 2 * columns + width]
        d4 = d[d_start + 3 * columns : d_start + 3 * columns + width]
        for c in range(width):
            a, b, p, q = np.float64(v1[c]), np.float64(v2[c]), np.float64(v3[c]), np.float64(v4[c])
            e, f, g, h = np.float64(d1[c]), np.float64(d2[c]), np.float64(d3[c]), np.float64(d4[c])
            vv[c] += (a * a + p * p) + (b * b + q * q)
            vd[c] += (a * e + p * g) + (b * f + q * h)
            dd[c] += (e * e + g * g) + (f * f + h * h)
        return
    for c in range(width):
        a, e = np.float64(v[v_start + c]), np.float64(d[d_start + c])
        b = np.float64(v[v_start + columns + c]) if rows > 1 else 0.0
        f = np.float64(d[d_start + columns + c]) if rows > 1 else 0.0
        p = np.float64(v[v_start + 2 * columns + c]) if rows > 2 else 0.0
        g = np.float64(d[d_start + 2 * columns + c]) if rows > 2 else 0.0
        vv[c] += (a * a + p * p) + b * b
        vd[c] += (a * e + p * g) + b * f
        dd[c] += (e * e + g * g) + f * f


def tile_products(v, v_start, d, d_start, columns, rows, width, tiles, out):
    """Sums of v*v, v*d, d*d down the columns of a tile of at most TILE_WIDTH, into `tiles`."""
    vv, vd, dd = stack(TILE_WIDTH), stack(TILE_WIDTH), stack(TILE_WIDTH)
    clear_sums(vv, width)
    clear_sums(vd, width)
    clear_sums(dd, width)
    for r in range(0, rows, 4):
        at = r * columns
        add_products(vv, vd, dd, v, v_start + at, d, d_start + at, columns, rows - r, width)
    for c in range(width):
        tiles[0, out + c] = vv[c]
        tiles[1, out + c] = vd[c]
        tiles[2, out + c] = dd[c]


def reduce_rows(first, end, s, tables):
    """Sums and scalars of whole contiguous slices."""
    segments, slices = integers(tables, SEGMENTS), reals(tables, SLICES)
    trainable = elements(tables, TRAINABLE, storage)
    direction = elements(tables, DERIVED_GRADIENT, storage)
    inner, begin, derived = (
        segments[s, SEGMENT_INNER],
        segments[s, SEGMENT_START],
        segments[s, SEGMENT_DERIVED],
    )
    for k in range(first, end):
        at = (k - segments[s, SEGMENT_FIRST_SLICE]) * inner
        vv, vd, dd = slice_products(trainable, begin + at, direction, derived + at, inner)
        slices[SLICE_VV, k] = vv
        slices[SLICE_VD, k] = vd
        slices[SLICE_DD, k] = dd
    form_slices(first, end, s, 0, 1, tables)


def reduce_piece(start, size, column, s, tables):
    """Sums of a piece of one slice."""
    segments, tiles = integers(tables, SEGMENTS), reals(tables, TILES)
    tiles[0, column], tiles[1, column], tiles[2, column] = product_sums(
        elements(tables, TRAINABLE, storage),
        segments[s, SEGMENT_START] + start,
        elements(tables, DERIVED_GRADIENT, storage),
        segments[s, SEGMENT_DERIVED] + start,
        size,
    )


def reduce_tile(first, start, size, s, tables):
    """Sums down the columns of a tile."""
    segments = integers(tables, SEGMENTS)
    columns, row = segments[s, SEGMENT_WIDTH], first * ROW_BLOCK
    at = row * columns + start
    tile_products(
        elements(tables, TRAINABLE, storage),
        segments[s, SEGMENT_START] + at,
        elements(tables, DERIVED_GRADIENT, storage),
        segments[s, SEGMENT_DERIVED] + at,
        columns,
        min(ROW_BLOCK, segments[s, SEGMENT_OUTER] - row),
        size,
        reals(tables, TILES),
        segments[s, SEGMENT_TILE] + first * columns + start,
    )


def reduce_range(begin, end, tables):
    """Pass 1 over a run of chunks, for one thread."""
    chunks, coefficients = integers(tables, CHUNKS), reals(tables, COEFFICIENTS)
    for c in range(begin, end):
        s, span = chunks[c, CHUNK_SEGMENT], chunks[c, CHUNK_SPAN]
        if coefficients[s, COEFFICIENT_MEASURED] == 0.0:
            continue
        start, size, first = chunks[c, CHUNK_START], chunks[c, CHUNK_SIZE], chunks[c, CHUNK_FIRST]
        if not NORMED or span == SPAN_PLAIN:
            partials = reals(tables, PARTIALS)
            partials[0, first], partials[1, first], partials[2, first] = bin_sums(
                elements(tables, GRADIENT, storage), start, size
            )
        elif span == SPAN_ROWS:
            reduce_rows(first, first + size, s, tables)
        elif span == SPAN_PIECE:
            reduce_piece(start, size, first, s, tables)
        else:
            reduce_tile(first, start, size, s, tables)
