"""Four elements at a time: the loads, stores and moves that a lane makes.

Lane q of a warp takes elements 4q to 4q + 3 of every 128, whole rows of 16 bytes where they are aligned.
"""

# mypy: ignore-errors

from __future__ import annotations

from nbopt.kernels.intrinsics import element_rows, load4, store4
from nbopt.kernels.normed import wide_tangent
from nbopt.kernels.scalars import clamp, lasso, ridge, storage, tangent
from nbopt.kernels.tables import LANES

QUAD = 4


def load_quad(into, table, row, at, left, tables):
    """Read at most four elements of a table, those that are `left`; the others are 0."""
    if left >= QUAD and at % QUAD == 0:
        into[0], into[1], into[2], into[3] = load4(tables, table, row, at, storage)
    else:
        values = element_rows(tables, table, storage)
        for j in range(QUAD):
            into[j] = storage(0.0)
            if j < left:
                into[j] = values[row, at + j]


def store_quad(quad, table, row, at, left, tables):
    """Write what `load_quad` reads."""
    if left >= QUAD and at % QUAD == 0:
        store4(tables, table, row, at, storage, quad[0], quad[1], quad[2], quad[3])
    else:
        values = element_rows(tables, table, storage)
        for j in range(QUAD):
            if j < left:
                values[row, at + j] = quad[j]


def load_ahead(into, count, table, at, tables):
    """Read `count` quads, one after the other of a lane; `at` is a multiple of 4."""
    for k in range(count):
        place = at + k * LANES
        into[4 * k], into[4 * k + 1], into[4 * k + 2], into[4 * k + 3] = load4(
            tables, table, 0, place, storage
        )


def load_column(into, table, row, at, step, left, tables):
    """Read at most four elements of a table, `step` apart, those that are `left`; the others are 0."""
    values = element_rows(tables, table, storage)
    for j in range(QUAD):
        into[j] = storage(0.0)
        if j < left:
            into[j] = values[row, at + j * step]


def store_column(quad, table, row, at, step, left, tables):
    """Write what `load_column` reads."""
    values = element_rows(tables, table, storage)
    for j in range(QUAD):
        if j < left:
            values[row, at + j * step] = quad[j]


def direction_grad(fast, near, far, alpha, beta, power_v, power_d, direction, v, low, high, l1, l2):
    """What the rule gets for an element of a v whose slice has these scalars."""
    if fast:
        return ridge(tangent(near, far, direction, v), v, l2)
    value = clamp(storage(wide_tangent(alpha, beta, direction, v, power_v, power_d)), low, high)
    return lasso(ridge(value, v, l2), v, l1)
