"""Norms and weight norm of plain arrays, with the shapes, and so the bits, of the step."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np

from nbopt.kernels.cpu.reduce import bin_sums, product_sums, slice_products, tile_products
from nbopt.kernels.cpu.update import write_slice
from nbopt.kernels.intrinsics import borrow
from nbopt.kernels.normed import wide_tangent
from nbopt.kernels.scalars import inverse_norm, is_normal, joined_factor, storage, tangent, tangent_scalars
from nbopt.kernels.slices import fold_columns, rescued_products
from nbopt.kernels.tables import (
    BINS,
    BLOCK,
    ROW_BLOCK,
    SPAN_PIECE,
    SPAN_ROWS,
    SPAN_TILE,
    TILE_WIDTH,
)
from nbopt.kernels.trees import pairwise


def array_squares(x, partials):
    """Sum of squares of an array by exponent bin, into the first column of `partials` (3, blocks)."""
    x, blocks = borrow(x), partials.shape[1]
    for block in range(blocks):
        low, middle, high = bin_sums(x, block * BLOCK, min(BLOCK, x.size - block * BLOCK))
        partials[0, block] = low
        partials[1, block] = middle
        partials[2, block] = high
    for b in range(BINS):
        pairwise(partials, b, 0, 1, blocks)


def slice_sums(v, d, outer, slices, inner, span, out, tiles):
    """Sums of v*v, v*d, d*d of each slice of (outer, slices, inner), and the powers of two of v and d.

    Into the columns of `out` (5, slices). `span`, and the size of the work space `tiles`, are what
    `nbopt.layout.sums_of` says.
    """
    v, d = borrow(v), borrow(d)
    columns = slices * inner
    if span == SPAN_PIECE:
        blocks = (inner + BLOCK - 1) // BLOCK
        for run in range(outer * slices):
            for block in range(blocks):
                at = run * inner + block * BLOCK
                column = (run // slices * blocks + block) * slices + run % slices
                tiles[0, column], tiles[1, column], tiles[2, column] = product_sums(
                    v, at, d, at, min(BLOCK, inner - block * BLOCK)
                )
        fold_columns(3, 0, slices, 1, outer * blocks, tiles)
    elif span == SPAN_TILE:
        for row in range(0, outer, ROW_BLOCK):
            rows = min(ROW_BLOCK, outer - row)
            for first in range(0, columns, TILE_WIDTH):
                at = row * columns + first
                width = min(TILE_WIDTH, columns - first)
                tile_products(v, at, d, at, columns, rows, width, tiles, row // ROW_BLOCK * columns + first)
        fold_columns(3, 0, columns, inner, (outer + ROW_BLOCK - 1) // ROW_BLOCK, tiles)
    head = inner if span == SPAN_TILE else 1
    for j in range(slices):
        at = j * inner
        vv, vd, dd = 0.0, 0.0, 0.0
        if span == SPAN_ROWS:
            vv, vd, dd = slice_products(v, at, d, at, inner)
        else:
            vv, vd, dd = tiles[0, j * head], tiles[1, j * head], tiles[2, j * head]
        out[0, j], out[1, j], out[2, j], out[3, j], out[4, j] = rescued_products(
            vv, vd, dd, v, at, d, at, outer, columns, inner
        )


def compose(v, g, outer, slices, inner, w, sums):
    """w = (g/|v|) v, slice by slice; `sums` as `slice_sums` left them."""
    w, v = borrow(w), borrow(v)
    for run in range(outer * slices):
        j = run % slices
        factor, power = joined_factor(np.float64(g[j]) * inverse_norm(sums[0, j]), sums[3, j])
        write_slice(w, v, run * inner, inner, 1, factor, power)


def backward(v, g, d, outer, slices, inner, dv, dg, sums):
    """dL/dv and dL/dg from d = dL/dw; `sums` as `slice_sums` left them."""
    for run in range(outer * slices):
        j = run % slices
        alpha, beta, slope = tangent_scalars(np.float64(g[j]), sums[0, j], sums[1, j])
        power_v, power_d = sums[3, j], sums[4, j]
        dg[j] = storage(slope / power_d)
        begin, end = run * inner, (run + 1) * inner
        if power_v == 1.0 and power_d == 1.0 and is_normal(alpha) and is_normal(beta):
            near, far = storage(alpha), storage(beta)
            for i in range(begin, end):
                dv[i] = tangent(near, far, d[i], v[i])
        else:
            for i in range(begin, end):
                dv[i] = storage(wide_tangent(alpha, beta, d[i], v[i], power_v, power_d))
