"""Weight norm between the passes: sums of the slices to their scalars, for every device."""

# mypy: ignore-errors

from __future__ import annotations

import math

from nbopt.kernels.intrinsics import elements, integers, reals, stack
from nbopt.kernels.scalars import (
    BIN_FROM,
    BIN_TO,
    bin_square,
    direction_norm,
    power_for,
    storage,
    tangent_scalars,
    unscaled,
)
from nbopt.kernels.tables import (
    ATTRIBUTE_PRESENT,
    ATTRIBUTES,
    COUNTERS,
    DERIVED_GRADIENT,
    PARTIALS,
    SEGMENT_DERIVED,
    SEGMENT_FIRST_SLICE,
    SEGMENT_INNER,
    SEGMENT_OUTER,
    SEGMENT_PARTIAL,
    SEGMENT_PARTNER,
    SEGMENT_PARTS,
    SEGMENT_SLICES,
    SEGMENT_START,
    SEGMENT_TILE,
    SEGMENT_WIDTH,
    SEGMENTS,
    SLICE_ALPHA,
    SLICE_BETA,
    SLICE_DD,
    SLICE_POWER_D,
    SLICE_POWER_V,
    SLICE_SLOPE,
    SLICE_VD,
    SLICE_VV,
    SLICES,
    TILES,
    TRAINABLE,
    ZERO_SLICES,
)
from nbopt.kernels.team import TEAM, barrier, count_one
from nbopt.kernels.trees import LEVELS, close_subtrees, pairwise, pairwise_rows, pairwise_team

MIDDLE = 1  # of the exponent bins
RUN = 32  # elements added one after the other in a rescued sum
FEW = 32  # columns, below which a team folds each of them together


def fold_columns(quantities, tile, width, inner, parts, tiles):
    """Fold partial sums over their parts, then over the `inner` columns of each slice, into its first."""
    for q in range(quantities):
        pairwise_rows(tiles, q, tile, width, parts)
        if inner > 1:
            for first in range(0, width, inner):
                pairwise(tiles, q, tile + first, 1, inner)


def fold_columns_team(quantities, tile, width, inner, parts, tiles, thread, threads):
    """The same by a team of threads: a column each, or together where there are few."""
    for q in range(quantities):
        if width < FEW:
            for c in range(width):
                pairwise_team(tiles, q, tile + c, width, parts, thread, threads)
        else:
            for c in range(thread, width, threads):
                pairwise(tiles, q, tile + c, width, parts)
        barrier()
        if inner > 1:
            for first in range(thread * inner, width, threads * inner):
                pairwise(tiles, q, tile + first, 1, inner)
            barrier()


def scaled_products(v, v_start, d, d_start, outer, step, inner, power_v, power_d):
    """Sums of v*v, v*d, d*d of one slice, over v and d times exact powers of two."""
    vv, vd, dd = stack(LEVELS), stack(LEVELS), stack(LEVELS)
    sums = stack(3)
    depth, count = 0, 0
    for q in range(3):
        sums[q] = 0.0
    for r in range(outer):
        for i in range(inner):
            a = float(v[v_start + r * step + i]) * power_v
            e = float(d[d_start + r * step + i]) * power_d
            sums[0] += a * a
            sums[1] += a * e
            sums[2] += e * e
            count += 1
            last = count == outer * inner
            if count % RUN == 0 or last:
                vv[depth] = sums[0]
                vd[depth] = sums[1]
                dd[depth] = sums[2]
                runs = (count + RUN - 1) // RUN
                close_subtrees(vv, depth + 1, runs, last)
                close_subtrees(vd, depth + 1, runs, last)
                depth = close_subtrees(dd, depth + 1, runs, last)
                for q in range(3):
                    sums[q] = 0.0
    return vv[0], vd[0], dd[0]


def rescued_products(vv, vd, dd, v, v_start, d, d_start, outer, step, inner):
    """(vv, vd, dd, power_v, power_d): the sums of a slice, formed again where float64 squares are unsafe."""
    if BIN_TO - BIN_FROM == 1:
        return vv, vd, dd, 1.0, 1.0
    power_v, power_d = power_for(vv), power_for(dd)
    if power_v != 1.0 or power_d != 1.0:
        vv, vd, dd = scaled_products(v, v_start, d, d_start, outer, step, inner, power_v, power_d)
    return vv, vd, dd, power_v, power_d


def form_slices(first, end, s, thread, threads, tables):
    """Sums of some slices of a v to their scalars, and to the squares of dL/dv and dL/dg."""
    segments, slices = integers(tables, SEGMENTS), reals(tables, SLICES)
    partials = reals(tables, PARTIALS)
    trainable = elements(tables, TRAINABLE, storage)
    direction = elements(tables, DERIVED_GRADIENT, storage)
    partner, inner = segments[s, SEGMENT_PARTNER], segments[s, SEGMENT_INNER]
    columns = segments[s, SEGMENT_SLICES] * inner
    begin, derived, outer = (
        segments[s, SEGMENT_START],
        segments[s, SEGMENT_DERIVED],
        segments[s, SEGMENT_OUTER],
    )
    magnitudes = segments[partner, SEGMENT_START]
    v_partial, g_partial = segments[s, SEGMENT_PARTIAL], segments[partner, SEGMENT_PARTIAL]
    offset = segments[s, SEGMENT_FIRST_SLICE]
    for k in range(first + thread, end, threads):
        j = k - offset
        vv, vd, dd, power_v, power_d = rescued_products(
            slices[SLICE_VV, k],
            slices[SLICE_VD, k],
            slices[SLICE_DD, k],
            trainable,
            begin + j * inner,
            direction,
            derived + j * inner,
            outer,
            columns,
            inner,
        )
        magnitude = float(trainable[magnitudes + j])
        alpha, beta, slope = tangent_scalars(magnitude, vv, vd)
        slices[SLICE_VV, k] = vv
        slices[SLICE_DD, k] = dd
        slices[SLICE_POWER_V, k] = power_v
        slices[SLICE_POWER_D, k] = power_d
        slices[SLICE_ALPHA, k] = alpha
        slices[SLICE_BETA, k] = beta
        slices[SLICE_SLOPE, k] = slope / power_d
        norm, slope_norm = math.nan, math.nan
        if math.isfinite(magnitude + vv + vd + dd):
            norm = unscaled(direction_norm(alpha, dd, slope), power_v, power_d)
            slope_norm = slope / power_d
        write_square(norm, v_partial + j, partials)
        write_square(slope_norm, g_partial + j, partials)


def fold_slices(s, thread, threads, tables):
    """Bring the slices of a v to their scalars where pass 1 left partial sums; count the zero ones."""
    segments, slices, tiles = integers(tables, SEGMENTS), reals(tables, SLICES), reals(tables, TILES)
    attributes, counters = reals(tables, ATTRIBUTES), integers(tables, COUNTERS)
    first, count = segments[s, SEGMENT_FIRST_SLICE], segments[s, SEGMENT_SLICES]
    parts, width, tile = segments[s, SEGMENT_PARTS], segments[s, SEGMENT_WIDTH], segments[s, SEGMENT_TILE]
    if parts > 0:
        inner = width // count
        if TEAM:
            fold_columns_team(3, tile, width, inner, parts, tiles, thread, threads)
        else:
            fold_columns(3, tile, width, inner, parts, tiles)
        for j in range(thread, count, threads):
            for q in range(3):
                slices[SLICE_VV + q, first + j] = tiles[q, tile + j * inner]
        form_slices(first, first + count, s, thread, threads, tables)
    written = False
    for k in range(first + thread, first + count, threads):
        if slices[SLICE_VV, k] == 0.0:
            count_one(counters, ZERO_SLICES)
        written = written or slices[SLICE_DD, k] != 0.0
    if written:
        attributes[s, ATTRIBUTE_PRESENT] = 1.0
        attributes[segments[s, SEGMENT_PARTNER], ATTRIBUTE_PRESENT] = 1.0


def write_square(value, column, partials):
    """Write the square of a number as a partial sum."""
    if BIN_TO - BIN_FROM == 1:
        partials[MIDDLE, column] = value * value
    else:
        partials[0, column], partials[1, column], partials[2, column] = bin_square(value)
