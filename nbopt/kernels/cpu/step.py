"""The one body of a step on the CPU: reduce, fold, update.

The serial twin is this source compiled without threads. Threads share the chunk table by cost, by a static
split that changes no bit.
"""

# mypy: ignore-errors

from __future__ import annotations

from numba import prange

from nbopt.kernels.cpu.reduce import reduce_range
from nbopt.kernels.cpu.update import recompose_tiles, update_range
from nbopt.kernels.fold import fold
from nbopt.kernels.intrinsics import acquire, address, integers, release
from nbopt.kernels.tables import (
    BUSY,
    CHUNK_COST,
    CHUNKS,
    CONCURRENT,
    COUNTERS,
    REFUSED,
    STATUS,
    STEPPED,
)

NORMED = True


def split(thread, threads, tables):
    """First chunk of a thread: the first at or above its share of the cost."""
    chunks = integers(tables, CHUNKS)
    low, high = 0, chunks.shape[0] - 1
    share = chunks[high, CHUNK_COST] * thread // threads
    while low < high:
        middle = (low + high) // 2
        if chunks[middle, CHUNK_COST] < share:
            low = middle + 1
        else:
            high = middle
    return low


def reduce_all(threads, tables):
    """Pass 1, every chunk."""
    for thread in prange(threads):
        reduce_range(split(thread, threads, tables), split(thread + 1, threads, tables), tables)


def update_all(threads, tables):
    """Pass 2, every chunk."""
    for thread in prange(threads):
        update_range(split(thread, threads, tables), split(thread + 1, threads, tables), tables)


def step(addresses, threads):
    """Take one step; return STEPPED, REFUSED or CONCURRENT.

    Parameters
    ----------
    addresses : int64 array of shape (TABLES, ADDRESS_COLUMNS)
        Where everything lies, see `nbopt.kernels.tables`; the caller keeps it alive.
    threads : int
    """
    tables = address(addresses)
    counters = integers(tables, COUNTERS)
    if not acquire(counters, BUSY):
        return CONCURRENT
    outcome = REFUSED
    if counters[0, STATUS] == 0:
        reduce_all(threads, tables)
        outcome = fold(tables)
        if outcome == STEPPED:
            update_all(threads, tables)
            if NORMED:
                recompose_tiles(tables)
    release(counters, BUSY)
    return outcome
