"""Averages of parameters: their columns, and what an update does to each segment, for every device."""

# mypy: ignore-errors

from __future__ import annotations

from nbopt.kernels.scalars import decayed, is_full, is_spill
from nbopt.kernels.tables import (
    ATTRIBUTE_AVERAGE,
    ATTRIBUTE_MOVED,
    ATTRIBUTE_PRESENT,
    ATTRIBUTE_TRAINABLE,
)

# int64, owned by an average: one segment.
(
    COUNT_MEMBER,  # 1 where the average was given it
    COUNT_UPDATES,  # values taken in
    COUNT_WINDOW,  # those in the sums of this window
    COUNT_LAST,  # those in the sum of the last window
    COUNT_PLAN,  # PLAN_*
    COUNT_COLUMNS,
) = range(6)

# What is done to the elements of a segment.
(
    PLAN_LEAVE,
    PLAN_ADD,  # to the first sum
    PLAN_SPILL,  # add, and move the first sum to the second
    PLAN_CLOSE,  # add, and move both sums to the third, which is replaced
    PLAN_DECAY,
    PLAN_WRITE,  # the parameter becomes its average
) = range(6)

# float64, owned by an average, one number for each segment: what its elements are divided by, the number of
# values in a sum, or the weight of an exponential average. 0 where nothing was taken in.


def plan_sum(s, rate, least, most, attributes, counts, weights):
    """Count one more value of segment `s`, if it is to be taken in, and say where it goes."""
    counts[s, COUNT_PLAN] = PLAN_LEAVE
    if counts[s, COUNT_MEMBER] == 0 or attributes[s, ATTRIBUTE_AVERAGE] == 0.0:
        return
    moved = attributes[s, ATTRIBUTE_MOVED]
    if moved < 0.0:
        moved = attributes[s, ATTRIBUTE_TRAINABLE] * attributes[s, ATTRIBUTE_PRESENT]
    if moved == 0.0:
        return
    counts[s, COUNT_UPDATES] += 1
    counts[s, COUNT_WINDOW] += 1
    counts[s, COUNT_PLAN] = PLAN_ADD
    if is_spill(counts[s, COUNT_UPDATES]):
        counts[s, COUNT_PLAN] = PLAN_SPILL
    if is_full(counts[s, COUNT_WINDOW], counts[s, COUNT_UPDATES], rate, least, most):
        counts[s, COUNT_PLAN] = PLAN_CLOSE
        counts[s, COUNT_LAST] = counts[s, COUNT_WINDOW]
        counts[s, COUNT_WINDOW] = 0
    weights[s] = float(counts[s, COUNT_WINDOW] + counts[s, COUNT_LAST])


def plan_decay(s, decay, attributes, counts, weights):
    """Weigh one more value of segment `s`, if it is to be taken in."""
    counts[s, COUNT_PLAN] = PLAN_LEAVE
    if counts[s, COUNT_MEMBER] != 0 and attributes[s, ATTRIBUTE_AVERAGE] != 0.0:
        counts[s, COUNT_PLAN] = PLAN_DECAY
        weights[s] = decayed(weights[s], 1.0, decay, 1.0 - decay)
