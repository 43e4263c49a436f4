"""Averages on the CPU: one pass over the trainable part, whatever each segment asks for.

Threads share the elements by a static split; each element is computed by itself, so that changes no bit.
"""

# mypy: ignore-errors

from __future__ import annotations

from numba import prange

from nbopt.kernels.averages import (
    COUNT_PLAN,
    PLAN_ADD,
    PLAN_DECAY,
    PLAN_LEAVE,
    PLAN_SPILL,
    PLAN_WRITE,
    plan_decay,
    plan_sum,
)
from nbopt.kernels.intrinsics import borrow
from nbopt.kernels.scalars import added, decayed, mean, storage, unbiased
from nbopt.kernels.tables import BLOCK, SEGMENT_SIZE, SEGMENT_START


def sum_run(begin, end, plan, value, rows):
    """Take one value of each element of a run into the three sums."""
    value = value[begin:end]
    first, second, third = rows[0, begin:end], rows[1, begin:end], rows[2, begin:end]
    if plan == PLAN_ADD:
        for i in range(value.size):
            first[i] = added(first[i], value[i])
    elif plan == PLAN_SPILL:
        for i in range(value.size):
            second[i] = added(second[i], added(first[i], value[i]))
            first[i] = storage(0.0)
    else:  # PLAN_CLOSE
        for i in range(value.size):
            third[i] = added(added(first[i], value[i]), second[i])
            first[i] = storage(0.0)
            second[i] = storage(0.0)


def decay_run(begin, end, decay, value, rows):
    """Take one value of each element of a run into the exponential average."""
    value, average = value[begin:end], rows[0, begin:end]
    near, rest = storage(decay), storage(1.0 - decay)
    for i in range(value.size):
        average[i] = decayed(average[i], value[i], near, rest)


def write_run(begin, end, weight, value, rows):
    """Write the average of each element of a run into the parameter."""
    value = value[begin:end]
    divisor = storage(weight)
    if rows.shape[0] == 1:
        average = rows[0, begin:end]
        for i in range(value.size):
            value[i] = unbiased(average[i], divisor)
    else:
        first, second, third = rows[0, begin:end], rows[1, begin:end], rows[2, begin:end]
        for i in range(value.size):
            value[i] = mean(first[i], second[i], third[i], divisor)


def segment_at(place, segments):
    """The last segment that starts at or before an element."""
    low, high = 0, segments.shape[0]
    while high - low > 1:
        middle = (low + high) // 2
        if segments[middle, SEGMENT_START] <= place:
            low = middle
        else:
            high = middle
    return low


def sweep_range(begin, end, decay, value, rows, segments, counts, weights):
    """Do what is planned for the elements from `begin` to `end`; padding between segments is left out."""
    value, rows = borrow(value), borrow(rows)
    segments, counts = borrow(segments), borrow(counts)
    for s in range(segment_at(begin, segments), segments.shape[0]):
        start = segments[s, SEGMENT_START]
        if start >= end:
            break
        first, last = max(begin, start), min(end, start + segments[s, SEGMENT_SIZE])
        plan = counts[s, COUNT_PLAN]
        if plan == PLAN_LEAVE or first >= last:
            continue
        if plan == PLAN_DECAY:
            decay_run(first, last, decay, value, rows)
        elif plan == PLAN_WRITE:
            write_run(first, last, weights[s], value, rows)
        else:
            sum_run(first, last, plan, value, rows)


def sweep(threads, decay, value, rows, segments, counts, weights):
    """Do what is planned for every element."""
    size = value.shape[0]
    blocks = (size + BLOCK - 1) // BLOCK
    for thread in prange(threads):
        begin, end = blocks * thread // threads * BLOCK, blocks * (thread + 1) // threads * BLOCK
        sweep_range(begin, min(end, size), decay, value, rows, segments, counts, weights)


def add_values(threads, rate, least, most, value, rows, segments, attributes, counts, weights):
    """Take the values of the parameters into their sums."""
    for s in range(segments.shape[0]):
        plan_sum(s, rate, least, most, attributes, counts, weights)
    sweep(threads, 0.0, value, rows, segments, counts, weights)


def decay_values(threads, rate, value, rows, segments, attributes, counts, weights):
    """Take the values of the parameters into their exponential averages."""
    for s in range(segments.shape[0]):
        plan_decay(s, rate, attributes, counts, weights)
    sweep(threads, rate, value, rows, segments, counts, weights)


def write_averages(threads, value, rows, segments, attributes, counts, weights):
    """Write the averages into the parameters that are planned for it."""
    sweep(threads, 0.0, value, rows, segments, counts, weights)
