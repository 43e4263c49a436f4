"""The one body of a step on the CPU: reduce, fold, update.

The serial twin is this source compiled without threads. Threads share the chunk table by cost, by a static split that
changes no bit.
"""

# mypy: ignore-errors

from __future__ import annotations

from numba import prange

from nbopt.kernels.cpu.reduce import reduce_range
from nbopt.kernels.cpu.update import recompose_tiles, update_range
from nbopt.kernels.fold import fold
from nbopt.kernels.intrinsics import acquire, borrow, release
from nbopt.kernels.tables import (
    BUSY,
    CHUNK_COST,
    CONCURRENT,
    GUARD,
    REFUSED,
    STATUS,
    STEPPED,
)

NORMED = True


def split(chunks, thread, threads):
    """First chunk of a thread: the first at or above its share of the cost."""
    low, high = 0, chunks.shape[0] - 1
    share = chunks[high, CHUNK_COST] * thread // threads
    while low < high:
        middle = (low + high) // 2
        if chunks[middle, CHUNK_COST] < share:
            low = middle + 1
        else:
            high = middle
    return low


def reduce_all(
    threads, data, grad, offset, chunks, segments, attributes, members, groups, clips, partials, slices, tiles, guard
):
    """Pass 1, every chunk."""
    for thread in prange(threads):
        reduce_range(
            split(chunks, thread, threads),
            split(chunks, thread + 1, threads),
            borrow(data),
            borrow(grad),
            offset,
            borrow(chunks),
            borrow(segments),
            borrow(attributes),
            borrow(members),
            borrow(groups),
            borrow(clips),
            borrow(partials),
            borrow(slices),
            borrow(tiles),
            guard,
        )


def update_all(threads, data, grad, accumulators, offset, chunks, segments, slices, tiles, coefficients):
    """Pass 2, every chunk."""
    for thread in prange(threads):
        update_range(
            split(chunks, thread, threads),
            split(chunks, thread + 1, threads),
            borrow(data),
            borrow(grad),
            borrow(accumulators),
            offset,
            borrow(chunks),
            borrow(segments),
            borrow(slices),
            borrow(tiles),
            borrow(coefficients),
        )


def step(
    data,
    grad,
    accumulators,
    chunks,
    segments,
    attributes,
    members,
    groups,
    clips,
    partials,
    slices,
    tiles,
    coefficients,
    rates,
    counters,
    threads,
):
    """Take one step; return STEPPED, REFUSED or CONCURRENT.

    Parameters
    ----------
    data, grad : 1-D arrays of the storage dtype
        Derived weights, plain parameters, v and g; the gradients of the first two.
    accumulators : 2-D array of the storage dtype
        One row per accumulator of the rule, along the trainable part.
    chunks, segments, attributes, members, groups, clips, slices, coefficients : 2-D arrays
        See `nbopt.kernels.tables`.
    partials, tiles : 2-D arrays of float64, three rows
        Work space of the sums.
    rates : 1-D array of float64
        The learning rate.
    counters : 1-D array of int64
    threads : int
    """
    if not acquire(counters, BUSY):
        return CONCURRENT
    if counters[STATUS] != 0:
        release(counters, BUSY)
        return REFUSED
    # Borrowed once here, the arrays cost no reference counts below.
    data, grad, accumulators = borrow(data), borrow(grad), borrow(accumulators)
    chunks, segments, attributes = borrow(chunks), borrow(segments), borrow(attributes)
    members, groups, clips = borrow(members), borrow(groups), borrow(clips)
    partials, slices, tiles = borrow(partials), borrow(slices), borrow(tiles)
    coefficients = borrow(coefficients)
    offset = data.size - accumulators.shape[1]
    reduce_all(
        threads,
        data,
        grad,
        offset,
        chunks,
        segments,
        attributes,
        members,
        groups,
        clips,
        partials,
        slices,
        tiles,
        counters[GUARD],
    )
    outcome = fold(
        data,
        offset,
        segments,
        attributes,
        members,
        groups,
        clips,
        partials,
        slices,
        tiles,
        coefficients,
        rates,
        counters,
    )
    if outcome == STEPPED:
        update_all(threads, data, grad, accumulators, offset, chunks, segments, slices, tiles, coefficients)
        if NORMED:
            recompose_tiles(data, accumulators, offset, segments, slices, tiles, coefficients)
    release(counters, BUSY)
    return outcome
