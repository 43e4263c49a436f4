"""The one body of a step on the CPU: reduce, fold, update.

The serial twin is this source compiled without threads. Threads share the chunk table by cost, by a static
split that changes no bit.
"""

# mypy: ignore-errors

from __future__ import annotations

from numba import prange

from nbopt.kernels.cpu.environment import compare_thread, is_flushing
from nbopt.kernels.cpu.late import compose_range, fold_squares, update_piece, update_tile
from nbopt.kernels.cpu.reduce import reduce_range
from nbopt.kernels.cpu.update import update_rows, update_run
from nbopt.kernels.fold import fold, mark_measured
from nbopt.kernels.intrinsics import acquire, copy_rows, integers, latest, pointer, reals, release
from nbopt.kernels.normed import is_normed_active
from nbopt.kernels.tables import (
    ADOPTED,
    BUSY,
    CHUNK_COST,
    CHUNK_FIRST,
    CHUNK_SEGMENT,
    CHUNK_SIZE,
    CHUNK_SPAN,
    CHUNK_START,
    CHUNKS,
    CLIPS,
    CLIPS_USED,
    COEFFICIENT_ACTIVE,
    COEFFICIENTS,
    CONCURRENT,
    COUNTERS,
    FLUSHED,
    FLUSHED_CALLER,
    FLUSHING,
    GROUPS,
    MEMBER_GROUP,
    MEMBER_ORDER,
    MEMBER_STEPS,
    MEMBERS,
    REFUSED,
    REQUESTED,
    SEGMENTS,
    SPAN_PIECE,
    SPAN_PLAIN,
    SPAN_ROWS,
    STATUS,
    STEPPED,
)

NORMED, PARALLEL = True, True  # binding says which


def split(thread, threads, count, tables):
    """First chunk of a thread: the first, of `count`, at or above its share of their cost."""
    chunks = integers(tables, CHUNKS)
    low, high = 0, count
    share = chunks[count, CHUNK_COST] * thread // threads
    while low < high:
        middle = (low + high) // 2
        if chunks[middle, CHUNK_COST] < share:
            low = middle + 1
        else:
            high = middle
    return low


def update_range(begin, end, tables):
    """Pass 2 over a run of chunks, for one thread; of a late chunk, all but w."""
    chunks = integers(tables, CHUNKS)
    for c in range(begin, end):
        s, span = chunks[c, CHUNK_SEGMENT], chunks[c, CHUNK_SPAN]
        start, size, first = chunks[c, CHUNK_START], chunks[c, CHUNK_SIZE], chunks[c, CHUNK_FIRST]
        if not NORMED or span == SPAN_PLAIN:
            if reals(tables, COEFFICIENTS)[s, COEFFICIENT_ACTIVE] != 0.0:
                update_run(start, start + size, s, tables)
        elif is_normed_active(s, tables):
            if span == SPAN_ROWS:
                update_rows(first, first + size, s, tables)
            elif span == SPAN_PIECE:
                update_piece(start, size, first, s, tables)
            else:
                update_tile(first, start, size, s, tables)


def reduce_all(threads, flushing, tables):
    """Pass 1, every chunk."""
    count = integers(tables, CHUNKS).shape[0] - 1
    if not PARALLEL:
        reduce_range(0, count, tables)
    else:
        for thread in prange(threads):
            begin, end = split(thread, threads, count, tables), split(thread + 1, threads, count, tables)
            reduce_range(begin, end, tables)
            compare_thread(flushing, threads, integers(tables, COUNTERS))


def update_all(threads, flushing, tables):
    """Pass 2, every chunk."""
    count = integers(tables, CHUNKS).shape[0] - 1
    if not PARALLEL:
        update_range(0, count, tables)
    else:
        for thread in prange(threads):
            begin, end = split(thread, threads, count, tables), split(thread + 1, threads, count, tables)
            update_range(begin, end, tables)
            compare_thread(flushing, threads, integers(tables, COUNTERS))


def compose_all(threads, flushing, late, tables):
    """Pass 3, the late chunks."""
    if not PARALLEL:
        compose_range(0, late, tables)
    else:
        for thread in prange(threads):
            begin, end = split(thread, threads, late, tables), split(thread + 1, threads, late, tables)
            compose_range(begin, end, tables)
            compare_thread(flushing, threads, integers(tables, COUNTERS))


def adopt(tables):
    """Take over the last edit of groups and clips that was made while steps may have run.

    The edits stand in two stages by turns, so the one being written is not the one that was requested last.
    """
    counters = integers(tables, COUNTERS)
    members, groups, clips = integers(tables, MEMBERS), reals(tables, GROUPS), reals(tables, CLIPS)
    count, wanted = integers(tables, SEGMENTS).shape[0], latest(counters, REQUESTED)
    while wanted != counters[0, ADOPTED]:
        stage = 1 + wanted % 2
        for s in range(count):
            members[s, MEMBER_GROUP] = members[stage * count + s, MEMBER_GROUP]
            members[s, MEMBER_ORDER] = members[stage * count + s, MEMBER_ORDER]
        copy_rows(groups, 0, stage * count, count)
        copy_rows(clips, 0, stage * (count + 1), count + 1)
        counters[0, CLIPS_USED] = members[stage * count, MEMBER_STEPS]
        counters[0, ADOPTED] = wanted
        wanted = latest(counters, REQUESTED)


def step(address, threads):
    """Take one step; return STEPPED, REFUSED or CONCURRENT, and FLUSHING added to it.

    Parameters
    ----------
    address : int
        Of an int64 array of shape (TABLES, ADDRESS_COLUMNS) that tells where everything lies, see
        `nbopt.kernels.tables`; the caller keeps all of it alive.
    threads : int
    """
    tables = pointer(address)
    counters = integers(tables, COUNTERS)
    if not acquire(counters, BUSY):
        return CONCURRENT
    outcome = REFUSED
    if counters[0, STATUS] == 0:
        flushing = is_flushing(threads)
        if flushing:
            counters[0, FLUSHED] |= FLUSHED_CALLER
        adopt(tables)
        mark_measured(0, 1, tables)
        reduce_all(threads, flushing, tables)
        outcome = fold(0, 1, tables)
        if outcome == STEPPED:
            update_all(threads, flushing, tables)
            chunks = integers(tables, CHUNKS)
            late = chunks[chunks.shape[0] - 1, CHUNK_FIRST]
            if NORMED and late > 0:
                fold_squares(tables)
                compose_all(threads, flushing, late, tables)
        if counters[0, FLUSHED] != 0:
            outcome += FLUSHING
    release(counters, BUSY)
    return outcome
